"""The artifact store: files, leases, checkpoints of running stages, the local cache, and garbage collection."""
