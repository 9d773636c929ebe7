"""Starts a temporary PostgreSQL server from Debian's packages, as a context manager."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
"""Of the newest version that is installed."""


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres() -> Iterator[str]:
    """A new cluster on a free port; what Prefect takes as PREFECT_SERVER_DATABASE_CONNECTION_URL."""
    assert BINARIES is not None
    # PostgreSQL refuses to run as root.
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="selftrain-postgres-"))
    if user:
        shutil.chown(folder, "postgres")
    port = free_port()

    def run(*command: str) -> None:
        done = subprocess.run([*user, *command], capture_output=True, text=True, cwd="/", timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    control = [str(BINARIES / "pg_ctl"), "--pgdata", str(folder / "data"), "--wait"]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    try:
        run(
            str(BINARIES / "initdb"),
            "-D",
            str(folder / "data"),
            "-U",
            "prefect",
            "-A",
            "trust",
            "--encoding=UTF8",
        )
        run(*control, "--log", str(folder / "log"), "-o", options, "start")
        try:
            run(str(BINARIES / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect")
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
        finally:
            run(*control, "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
