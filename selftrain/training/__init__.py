"""The training stages; each stage module runs as a child process: `python -m selftrain.training.sft resolved.json`."""
