"""Starts, monitors and ends child processes, on one or several machines."""
