"""The training stages; each module runs as a child process: `python -m selftrain.training.sft resolved.json`."""
