"""What a person runs: one file each, only wiring."""
