"""Exports the reranker of a finished run as a folder that other tools can use: checkpoint, model card, upload to the hub."""
