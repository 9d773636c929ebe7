"""Child processes and nodes: starting them, their heartbeats, their ends."""
