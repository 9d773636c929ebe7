"""Models: loading, tokens, shapes, memory, adapters."""
