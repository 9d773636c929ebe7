"""Tests of the sandbox over HTTP under load, and of what a server that is killed leaves behind."""

import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from sandbox.backends import docker
from tests.bench.load import leaks, load
from tests.command import wait_until
from tests.sandbox.conftest import BACKENDS, need_backend
from tests.sandbox.serving import Server, serving

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("backend", BACKENDS)
def test_load_gives_no_wrong_answer_and_leaves_nothing(backend: str) -> None:
    need_backend(backend)
    found = load(backend, workers=2, clients=8, seconds=8, languages=["python", "bash", "cpp"])
    assert found["wrong_first"] == []
    assert leaks(found) == [], found
    assert found["sandbox_errors_total"] == 0
    assert found["sandbox_cancelled_total"] > 0, "clients hung up"
    assert found["answers"]["200"] > 20


def processes_of(mark: str) -> list[str]:
    """Process ids of the programs with `mark` in their environment, in containers too."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if b"SANDBOX_MARK=" + mark.encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


def containers_of(server: Server) -> list[str]:
    """Ids of the containers of a server's workers."""
    found = docker.connect().containers.list(
        all=True, filters={"label": f"{docker.LABEL}={server.process.pid}"}, ignore_removed=True
    )
    return [container.id for container in found]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_server_that_ends_under_load_leaves_nothing(
    backend: str, how: signal.Signals, scratch: Path
) -> None:
    need_backend(backend)
    folder = Path(tempfile.mkdtemp(dir=scratch))  # unlike pytest's own folders it is open to other users
    folder.chmod(0o711)
    mark = f"{backend}-{how.name}"
    code = f"export SANDBOX_MARK={mark}; sleep 1000 & (setsid sleep 1000 &); echo > here; while :; do :; done"

    def ask(server: Server, at: int) -> None:
        with suppress(httpx.TransportError):
            server.post("/run_code", {"code": f"{code} # {at}", "language": "bash", "run_timeout": 100})

    with serving("--backend", backend, TMPDIR=str(folder)) as server:
        clients = [threading.Thread(target=ask, args=(server, at)) for at in range(6)]
        for client in clients:
            client.start()
        wait_until(lambda: server.metric("sandbox_running ") == 2, "the programs", seconds=60)
        wait_until(lambda: server.metric("sandbox_queue ") == 4, "the queue", seconds=60)
        time.sleep(1)
        assert backend != "docker" or len(containers_of(server)) == 2
        assert backend != "process" or processes_of(mark)
        server.process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(timeout=60)
        assert server.process.poll() is not None, "SIGTERM ends the server although requests are in flight"
        for client in clients:
            client.join()
        wait_until(lambda: not processes_of(mark), "the end of the programs", seconds=60)
        wait_until(lambda: not any(folder.iterdir()), "the removal of the files", seconds=60)
        if backend == "docker":
            wait_until(lambda: not containers_of(server), "the removal of the containers", seconds=60)
