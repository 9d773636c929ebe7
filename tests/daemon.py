"""Starts a private Docker daemon, which a test may kill; its sandbox image lacks most of the compilers."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.backends import docker
from sandbox.languages import COMMON
from tests.needs import need, need_tools

LEFT_OUT = (
    "./proc", "./sys", "./dev", "./var", "./usr/share", "./usr/include", "./usr/lib/gcc", "./usr/lib/jvm", "./usr/lib/mono",
    "./usr/lib/rustlib", "./usr/lib/go-*", "./usr/lib/llvm*", "./usr/lib/x86_64-linux-gnu/libLLVM*",
)  # fmt: skip
"""What Python and shell programs do not need: seconds of copying."""


class Daemon:
    """`dockerd` in `folder`, started, killed and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.url = f"unix://{folder}/docker.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            "dockerd", f"--host={self.url}", f"--data-root={self.folder / 'data'}", f"--exec-root={self.folder / 'exec'}",
            f"--pidfile={self.folder / 'pid'}", "--iptables=false", "--ip6tables=false", "--bridge=none",
            "--storage-driver=overlay2", "--exec-opt=native.cgroupdriver=cgroupfs",
        ]  # fmt: skip
        deadline = time.monotonic() + 180
        while not self.answers():
            if time.monotonic() > deadline:
                raise RuntimeError(f"no Docker daemon:\n{(self.folder / 'log').read_text()[-2000:]}")
            if (
                self.process is None or self.process.poll() is not None
            ):  # a slow containerd ends it: as systemd does
                (self.folder / "pid").unlink(missing_ok=True)
                with (self.folder / "log").open("ab") as log:
                    self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            time.sleep(0.1)

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End the daemon alone, not its containers."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(60)

    def client(self) -> Any:
        """A client of this daemon."""
        from docker import DockerClient

        return DockerClient(base_url=self.url, timeout=30)

    def answers(self) -> bool:
        """Whether it does."""
        from docker.errors import DockerException

        try:
            return bool(self.client().ping())
        except (DockerException, OSError):
            return False

    def containers(self) -> list[Any]:
        """All of the sandbox's, in whatever state."""
        return list(
            self.client().containers.list(all=True, filters={"label": docker.LABEL}, ignore_removed=True)
        )

    def running(self) -> list[Any]:
        """Those that have started and not ended."""
        return [container for container in self.containers() if container.status == "running"]


@contextmanager
def own_daemon(folder: Path) -> Iterator[Daemon]:
    """A daemon that ends with the block. Its image comes from the daemon that is there."""
    need_tools("dockerd", "docker", "tar")
    need(os.geteuid() == 0, "only root can start a Docker daemon")
    there = docker.connect()
    config = there.images.get(docker.tag(COMMON)).attrs["Config"]
    daemon = Daemon(folder)
    try:
        daemon.start()
        copy_image(daemon, config)
        yield daemon
    finally:
        if not daemon.answers():
            daemon.start()  # it takes its containers and mounts with it
        daemon.kill(signal.SIGTERM)
        for line in reversed(
            Path("/proc/mounts").read_text().splitlines()
        ):  # those of the daemon that was killed
            if (where := line.split()[1]).startswith(f"{folder}/"):
                subprocess.run(["umount", "--lazy", where], check=False)


def copy_image(daemon: Daemon, config: dict[str, Any]) -> None:
    """Bring the sandbox's image into `daemon`, by the same name."""
    tar = [
        "--entrypoint",
        "tar",
        docker.tag(COMMON),
        "-cC",
        "/",
        *(f"--exclude={name}" for name in LEFT_OUT),
        ".",
    ]
    changes = [f"ENV {value}" for value in config["Env"]]
    changes += [f"ENTRYPOINT [{', '.join(chr(34) + word + chr(34) for word in config['Entrypoint'])}]"]
    changes += [f"WORKDIR {config['WorkingDir']}"]
    save = ["docker", "run", "--rm", "--network=none", *tar]
    load = [
        "docker",
        "--host",
        daemon.url,
        "import",
        *(f"--change={text}" for text in changes),
        "-",
        docker.tag(COMMON),
    ]
    with subprocess.Popen(save, stdout=subprocess.PIPE) as source:
        subprocess.run(load, stdin=source.stdout, check=True, capture_output=True)
    if source.returncode:
        raise RuntimeError(f"the image {docker.tag(COMMON)} could not be copied")
