"""The command `selftrain studio`: a page on this machine to rank programs by hand."""

import argparse
import os
import socket
import sys
from contextlib import suppress
from typing import Any

from flows.cli_serve import check_port
from flows.options import add_command, add_number, offline
from selftrain.errors import UsageError


def add_studio(commands: Any) -> None:
    """Add `selftrain studio`."""
    studio = add_command(
        commands,
        "studio",
        studio_command,
        "a page to paste or generate candidates, rank them and see which tokens cost them",
        "Serves a page for one person at this machine (loopback only): scores, the sandbox's verdicts, the pick, and the "
        "score of each token. Ctrl-C ends it.",
    )
    studio.add_argument("what", metavar="RUN", help="a run, champion, or a reranker's folder, URL or hub id")
    studio.add_argument("--by", metavar="WAY", help="another way to rank: rm-2 is the reranker alone")
    studio.add_argument(
        "--generator",
        metavar="PLACE",
        help="a generator's folder, run or hub id (default: RUN's own); with --base-url its name there",
    )
    studio.add_argument("--base-url", metavar="URL", help="a server with OpenAI's protocol that generates")
    studio.add_argument("--chat", action="store_true", help="the server's model answers questions")
    studio.add_argument("--device", default="cpu", help="(default: %(default)s)")
    add_number(studio, "--port", 8082, None, "0: any free one")


def studio_command(options: argparse.Namespace) -> int:
    """`selftrain studio`."""
    check_port(options.port)
    offline(options.what, None if options.base_url else options.generator)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if options.base_url and not options.generator:
        raise UsageError("--base-url needs --generator, the model's name on that server")
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise UsageError("studio needs uvicorn; run `pip install 'selftrain[serve]'`") from error
    listening = listen(options.port)  # before the model is loaded, which takes longer
    from selftrain.generate.generator import Generator
    from selftrain.serve.served import Wanted
    from selftrain.studio.app import application

    served = Wanted(options.what, options.by, options.device).load()
    place = options.generator or options.what

    def generator() -> Generator:
        if options.base_url:
            return Generator.load(place, base_url=options.base_url, chat=options.chat)
        return Generator.load(place, device=options.device)

    port = listening.getsockname()[1]
    print(f"studio of {served.name}: http://127.0.0.1:{port}/", file=sys.stderr)
    server = uvicorn.Server(
        uvicorn.Config(application(served, generator), log_level="warning", access_log=False)
    )
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    return 0


def listen(port: int) -> socket.socket:
    """A socket that listens on `port` of 127.0.0.1; 0: any free port. Raises UsageError where it cannot."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise UsageError(f"--port {port}: cannot be listened on: {os.strerror(error.errno or 0)}") from error
