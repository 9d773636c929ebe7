"""Looks into what a user has: a file of problems, programs that something else wrote, one candidate of a run."""
