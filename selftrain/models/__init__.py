"""Models and tokenizers: loading, encoding, parameter counts, memory estimates, low-rank adapters."""
