"""The backends: how a worker and its programs are isolated, one file each."""
