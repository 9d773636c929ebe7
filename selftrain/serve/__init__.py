"""The reranker over HTTP, with the APIs of Cohere, Jina, vLLM, Text Embeddings Inference and OpenRLHF's remote reward.

Needs the extra `serve`: FastAPI, uvicorn, prometheus-client.
"""
