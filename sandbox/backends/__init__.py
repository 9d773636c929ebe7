"""How programs are kept away from the machine: one file per way."""
