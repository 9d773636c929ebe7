"""The registry of champions, the rule of promotion, and drift."""
