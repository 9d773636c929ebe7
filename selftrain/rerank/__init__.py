"""The reranker: ranks the candidates of a prompt, and scores pools of candidates."""
