"""A page on which a person ranks programs and sees scores, verdicts, the pick and the tokens that cost it: `selftrain studio`."""
