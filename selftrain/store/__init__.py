"""Artifacts in a store: files, leases, checkpoints, the cache of this machine, and what removes them."""
