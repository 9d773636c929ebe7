"""Starts, watches and ends child processes, on one machine or several nodes."""
