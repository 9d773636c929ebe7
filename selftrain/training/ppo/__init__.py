"""Trains a generator against a scoring function with PPO, GRPO or RLOO."""
