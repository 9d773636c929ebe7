"""Proximal policy optimisation of a generator against a scoring function: equations, model, rollouts, trainer."""
