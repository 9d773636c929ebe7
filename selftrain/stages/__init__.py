"""The stages of the method, one file each: the slice of the config it depends on, and its `run` function."""
