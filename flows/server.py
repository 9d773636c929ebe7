"""Starts a temporary Prefect server for a run if PREFECT_API_URL is not set; the server ends with the run.

The server has its own session. A signal to the run's process group (from a terminal, `timeout`, SLURM or the end of a pod) would
otherwise end the server before the run has reported its final state, and Prefect's client would wait a long time for it. The
server's standard input is a pipe that the run keeps open: however the run ends, the pipe closes and the server exits.
"""

import atexit
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from selftrain.errors import RunError
from selftrain.launch.ending import ENDING

SETTINGS = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
"""Environment variables with which Prefect starts its own temporary server."""
STOP_SECONDS = 3.0
"""Seconds between SIGTERM and SIGKILL, in which the server writes its last states."""


def start() -> None:
    """Start the server and register it with Prefect as its temporary server. Raises RunError if it does not come up."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, get_current_settings

    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]))
    listening = socket.create_server(("127.0.0.1", 0))  # no other process can take the port
    log = tempfile.TemporaryFile()  # noqa: SIM115 - for as long as the process lives
    with listening:
        port = listening.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(listening.fileno())],
            env=os.environ | SETTINGS | settings | {"PYTHONPATH": path},
            pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    ENDING.last.append(process.kill)
    atexit.register(stop, process)
    deadline = time.monotonic() + PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            said = log.read().decode(errors="replace").strip()[-2000:]
            code = process.poll()
            how = "did not answer in time" if code is None else f"ended with code {code}"
            raise RunError(f"the Prefect server that this run started {how}; the end of its log:\n{said}")
    server = SubprocessASGIServer()
    server.port, server.server_process, server.running = port, process, True


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Terminate the server; kill it after STOP_SECONDS."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    health = f"http://127.0.0.1:{port}/api/health"
    with suppress(OSError, urllib.error.URLError), urllib.request.urlopen(health, timeout=1):
        return True
    time.sleep(0.1)
    return False


def main() -> None:
    """Entry point of the server process: serves on the socket whose file descriptor is the command-line argument."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_hold_lifeline, daemon=True).start()
    import uvicorn

    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        log_level="error",
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _hold_lifeline() -> None:
    """Exit when the pipe to standard input closes, that is, when the run has ended."""
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
