"""Points rerank clients of others at `selftrain serve`: each has to return the server's order and scores.

    python -m venv /tmp/clients
    /tmp/clients/bin/pip install -r tests/clients/requirements.txt
    selftrain serve runs/demo &
    /tmp/clients/bin/python tests/clients/rerank.py http://127.0.0.1:8081            (a server with a token: --token TOKEN)

They have dependencies that do not go with this project's, so they run in an environment of their own, and this file imports
nothing of the project. One line for each client; the exit code is the number of those that failed. `--openrlhf FILE`: also run
`_fetch_rewards_via_http` of OpenRLHF's `openrlhf/utils/agent.py`, which cannot be installed
without CUDA; it sends no token.
"""

import argparse
import ast
import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

PROMPT = 'def total(xs):\n    """ Add all numbers of xs. """\n'
TEXTS = ["    return sum(xs)\n", "    return xs\n", "    return len(xs) + 1\n", "    pass\n"]
Pairs = list[tuple[int, float]]
"""(number of the candidate, its score), best first."""


def post(url: str, body: object, token: str) -> dict:
    """The JSON answer, without a client of anybody."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def cohere(url: str, token: str) -> Pairs:
    from cohere import ClientV2

    found = ClientV2(token, base_url=url).rerank(model="any", query=PROMPT, documents=TEXTS)
    return [(row.index, row.relevance_score) for row in found.results]


def cohere_v1(url: str, token: str) -> Pairs:
    from cohere import Client

    found = Client(token, base_url=url).rerank(
        model="any", query=PROMPT, documents=[{"text": text} for text in TEXTS], return_documents=True
    )
    assert [row.document.text for row in found.results] == [TEXTS[row.index] for row in found.results]
    return [(row.index, row.relevance_score) for row in found.results]


def langchain_cohere(url: str, token: str) -> Pairs:
    from langchain_cohere import CohereRerank

    found = CohereRerank(cohere_api_key=token, base_url=url, model="any", top_n=4).rerank(TEXTS, PROMPT)
    return [(row["index"], row["relevance_score"]) for row in found]


def litellm(provider: str, base: str) -> Callable[[str, str], Pairs]:
    """LiteLLM by the way of one provider. `base`: what follows the server's URL."""

    def ask(url: str, token: str) -> Pairs:
        from litellm import rerank

        found = rerank(
            model=f"{provider}/any",
            query=PROMPT,
            documents=TEXTS,
            api_base=url + base,
            api_key=token,
            top_n=4,
        )
        return [(row["index"], row["relevance_score"]) for row in found.results]

    return ask


def llama_index(ranker: object) -> Pairs:
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(at))) for at, text in enumerate(TEXTS)]
    found = ranker.postprocess_nodes(nodes, query_str=PROMPT)
    return [(int(node.node.id_), node.score) for node in found]


def llama_index_cohere(url: str, token: str) -> Pairs:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return llama_index(CohereRerank(top_n=4, model="any", api_key=token, base_url=url))


def llama_index_jina(url: str, token: str) -> Pairs:
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    return llama_index(JinaRerank(top_n=4, model="any", api_key=token, base_url=url + "/v1"))


def llama_index_tei(url: str, token: str) -> Pairs:
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    return llama_index(TextEmbeddingInference(top_n=4, base_url=url, auth_token=f"Bearer {token}"))


def haystack(ranker: object) -> Pairs:
    from haystack import Document

    documents = [Document(content=text, meta={"at": at}) for at, text in enumerate(TEXTS)]
    found = ranker.run(query=PROMPT, documents=documents, top_k=4)["documents"]
    return [(document.meta["at"], document.score) for document in found]


def haystack_cohere(url: str, token: str) -> Pairs:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    return haystack(CohereRanker(model="any", api_key=Secret.from_token(token), api_base_url=url))


def haystack_jina(url: str, token: str) -> Pairs:
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.jina import JinaRanker

    key = Secret.from_token(token)
    return haystack(JinaRanker(model="any", api_key=key, base_url=url + "/v1/rerank"))


CLIENTS: dict[str, Callable[[str, str], Pairs]] = {
    "cohere, v2": cohere,
    "cohere, v1": cohere_v1,
    "langchain-cohere": langchain_cohere,
    "litellm, cohere": litellm("cohere", "/v2/rerank"),
    "litellm, jina_ai": litellm("jina_ai", ""),
    "litellm, hosted_vllm": litellm("hosted_vllm", ""),
    "litellm, huggingface (TEI)": litellm("huggingface", ""),
    "llama-index, cohere": llama_index_cohere,
    "llama-index, jina": llama_index_jina,
    "llama-index, TEI": llama_index_tei,
    "haystack, cohere": haystack_cohere,
    "haystack, jina": haystack_jina,
}


def openrlhf(file: str, url: str) -> Pairs:
    """Run the method that asks a remote reward model, taken from its source by name, since its module imports vLLM."""
    import logging

    import aiohttp

    source = Path(file).read_text()
    [method] = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.AsyncFunctionDef) and node.name == "_fetch_rewards_via_http"
    ]
    names = {"aiohttp": aiohttp, "asyncio": asyncio, "logger": logging.getLogger()}
    exec(compile(ast.Module([method], []), file, "exec"), names)

    class Executor:
        reward_endpoints = (url + "/get_reward",)

    queries = [PROMPT + text for text in TEXTS]
    [found] = asyncio.run(
        names["_fetch_rewards_via_http"](Executor(), queries, [PROMPT] * len(TEXTS), ["label"] * len(TEXTS))
    )
    assert len(found["rewards"]) == len(TEXTS)
    return sorted(enumerate(found["scores"]), key=lambda pair: -pair[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--token", default="none")
    parser.add_argument("--openrlhf", metavar="FILE")
    parser.add_argument("--only", default="", help="clients whose name begins so")
    options = parser.parse_args(arguments)
    asked = post(options.url + "/rerank", {"query": PROMPT, "documents": TEXTS}, options.token)
    expected = [(row["index"], row["relevance_score"]) for row in asked["results"]]
    clients = dict(CLIENTS)
    if options.openrlhf:
        clients["openrlhf, remote reward"] = lambda url, _: openrlhf(options.openrlhf, url)
    failed = 0
    for name, client in clients.items():
        if not name.startswith(options.only):
            continue
        try:
            found = client(options.url, options.token)
            assert [at for at, _ in found] == [at for at, _ in expected], found
            assert all(abs(one - two) < 1e-4 for (_, one), (_, two) in zip(found, expected, strict=True)), (
                found
            )
            print(f"right   {name}")
        except Exception as error:
            failed += 1
            print(f"WRONG   {name}: {type(error).__name__}: {str(error)[:300]}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
