"""The command `selftrain serve`: the reranker over HTTP."""

import argparse
import logging
import math
import os
import sys
from typing import Any

from flows.options import add_command, add_number, offline
from selftrain.errors import UsageError


def add_serve(commands: Any) -> None:
    """Add `selftrain serve`."""
    serve = add_command(
        commands,
        "serve",
        serve_command,
        "rank over HTTP, as Cohere, Jina, vLLM and Text Embeddings Inference do",
        "Ranks candidates over HTTP in the way that the run's validation chose. SIGHUP loads the newest reranker without "
        "losing a request; SIGTERM answers what was accepted and ends. A token: SELFTRAIN_TOKEN. See docs/serve.md.",
    )
    serve.add_argument(
        "what",
        metavar="RUN",
        help="a run's folder or its name in runs/; champion, champion:NAME or champion@STORE; or a reranker's folder, URL or hub id",
    )
    serve.add_argument("--by", metavar="WAY", help="another way to rank: rm-2 is the reranker alone")
    serve.add_argument("--device", default="cpu", help="(default: %(default)s)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add_number(serve, "--port", 8081, None)
    add_number(serve, "--queue", 8192, "N", "candidates that may wait; more get HTTP 503")
    add_number(serve, "--documents", 1000, "N", "candidates of one request; more get HTTP 413")
    add_number(
        serve, "--characters", 200_000, "N", "characters of one prompt or candidate; more get HTTP 413"
    )
    stuck = "/healthz answers 503 when candidates are scored for more than S seconds"
    add_number(serve, "--stuck", 300.0, "S", stuck)
    workers = "processes that serve and share cores and --queue; as many as cores suit small models"
    add_number(serve, "--workers", 1, "N", workers)
    serve.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="scoring threads of a process, which share its cores (default: 2 on CPUs with one worker, else 1)",
    )
    add_number(serve, "--poll", 60.0, "S", "look for a newer reranker every S seconds; 0: only at SIGHUP")


def check_port(port: int) -> None:
    """Raise UsageError where `port` is no number of a TCP port."""
    if not 0 <= port < 1 << 16:
        raise UsageError(f"--port: expected 0 to 65535, got {port}")


def url_of(host: str, port: int) -> str:
    """The address of a server as clients write it: that of IPv6 in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve_command(options: argparse.Namespace) -> int:
    """`selftrain serve`."""
    if options.threads is None:
        options.threads = 2 if options.device == "cpu" and options.workers == 1 else 1
    for name in ("queue", "documents", "characters", "threads", "workers"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name}: expected at least 1, got {getattr(options, name)}")
    if not 0 < options.stuck < math.inf:
        raise UsageError(f"--stuck: expected more than 0 seconds, got {options.stuck:g}")
    if not 0 <= options.poll < math.inf:
        raise UsageError(f"--poll: expected seconds, or 0 for never, got {options.poll:g}")
    if options.workers > 1 and options.device != "cpu":
        raise UsageError(
            f"--workers {options.workers}: several processes are for CPUs; on {options.device} one serves"
        )
    check_port(options.port)
    offline(options.what)
    from selftrain.serve.workers import prepared

    with prepared(options.workers) as cores:
        _serve(options, cores)
    return 0


def _serve(options: argparse.Namespace, cores: int) -> None:
    """Serve with checked options; `cores`: those of each worker."""
    # The scoring thread and the tokenizer's would compete.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from selftrain.serve.command import TOKEN, check, serve
    except ModuleNotFoundError as error:
        raise UsageError(
            f"serve needs the package {error.name}, which is not installed; run `pip install 'selftrain[serve]'`"
        ) from error
    from selftrain.serve.served import Source, Wanted
    from selftrain.serve.service import Limits

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    token = check(options.host, options.port)
    source = Source(Wanted(options.what, options.by, options.device))
    if options.host not in ("127.0.0.1", "::1", "localhost") and not token:
        logging.warning(
            "everyone who reaches %s:%d may ask; set %s to ask for a token", options.host, options.port, TOKEN
        )
    where = url_of(options.host, options.port)
    print(
        f"serving {source.served.name} on {where}, by {source.served.way}; /docs lists the routes",
        file=sys.stderr,
    )
    queue = max(1, options.queue // options.workers)
    limits = Limits(options.documents, options.characters, queue, options.stuck, options.threads)
    serve(
        source, limits, options.host, options.port, options.poll, token, workers=options.workers, cores=cores
    )
