"""Champion rerankers: their registry, the rule of promotion, and plots of drift over time."""
