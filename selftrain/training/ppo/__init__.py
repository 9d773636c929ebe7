"""Proximal policy optimisation (PPO) of a generator against a scoring function."""
