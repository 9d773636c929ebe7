"""Benchmarks of `make bench`, which measure speed, mostly as ratios measured side by side. They never fail."""
