"""The backends (one module each), which start workers and isolate their programs."""
