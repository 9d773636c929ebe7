"""`make bench`: speed, measured side by side in one run and given as ratios. Nothing here passes or fails."""
