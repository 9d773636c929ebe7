"""The stages of the method, one module each: the config slice that a stage depends on, and its `run` function."""
