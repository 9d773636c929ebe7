"""A sandbox server of their own for tests."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.command import ROOT


@dataclass
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[str]

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, **more)

    def text(self, path: str) -> str:
        return httpx.get(self.url + path).text

    def metric(self, name: str) -> float:
        """The sum of a figure over its labels."""
        lines = self.text("/metrics").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@contextmanager
def serving(*options: str, **environment: str) -> Iterator[Server]:
    """A server of its own on a free port, with two workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "sandbox", "serve", "--backend", "process", "--workers", "2"]
    process = subprocess.Popen(
        [*command, "--port", str(port), *options],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx.get(url + "/v1/ping").json() == "pong":
                    break
            except httpx.TransportError:
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield Server(url, process)
    finally:
        process.terminate()
        process.communicate(timeout=30)
