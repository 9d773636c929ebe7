"""Training, each stage a module that runs as a child process: `python -m selftrain.training.sft resolved.json`."""
