"""Backend `docker`, which runs each worker in its own restricted container for as long as the sandbox is open.

Programs and verdicts go over the container's standard streams. The container has no network and a read-only file system. The
runner inside is root, with only those capabilities that it needs to become another user, to kill that user's processes and to
remove that user's files. Each program runs as a new user.
"""

import contextlib
import hashlib
import io
import json
import os
import secrets
import socket
import struct
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from sandbox.backends import code, npm
from sandbox.backends.choice import Choice, fetch, machine
from sandbox.channel import GOODBYE_SECONDS, wait_readable
from sandbox.errors import BackendUnavailable, ImageMissing, SandboxError, UsageError
from sandbox.languages import COMMON, LANGUAGES, NODE_BUILDS, NODE_MODULES
from sandbox.prepared import inputs
from sandbox.verdicts import LARGEST_MEMORY_BYTES, MIB, Program

NAME = "docker"
MEMORY_BYTES = 3072 * MIB
"""The memory limit of a container. It has to suffice for the program, its files in memory, the compilers and the runner."""
PROCESSES = 1024
"""The limit on processes and threads in a container."""
FILES_BYTES = 256 * MIB
"""The size of each of a container's writable file systems, which are in memory."""
FILES_COUNT = 16_384
"""The most files in each of them."""
LABEL = "selftrain.sandbox"
"""The name of a label of each container; its value is the process id of the client."""

NOTHING = Choice()

# Size of the file system in memory with this package's code, and the most files in it.
_CODE_BYTES = 8 * MIB
_CODE_FILES = 512
_SERVERS = code.PACKAGE / "servers"
_COMPILED = ("JavaCompile.java", "CsCompile.cs")
_KEPT_STDERR = 20  # frames of a container's stderr that are kept for an error message
_RETRY_SECONDS = 0.5  # between attempts to connect to the daemon
_STDOUT = 1  # the stream number of stdout in an attached stream
# SETUID, SETGID: become the program's user. KILL: kill that user's processes. CHOWN: make the user the owner of the program's
# directory. DAC_OVERRIDE, FOWNER: remove the user's files.
_CAPABILITIES = ["SETUID", "SETGID", "KILL", "CHOWN", "DAC_OVERRIDE", "FOWNER"]


def starter(
    runtime: str | None = None,
    command: Sequence[str] = ("sandbox.runner", "container"),
    more: Sequence[code.Source] = (),
) -> Callable[[str], "Attached"]:
    """A function that starts a worker in a container of an image, one of `languages.IMAGES`. It raises `BackendUnavailable`,
    `SandboxError`. It stays with the images that it found first, so that an image with other libraries that is built meanwhile does
    not change the verdicts of an open sandbox.

    `runtime`: another OCI runtime that the daemon knows, such as `runsc` (gVisor). `command`: the module that the container runs,
    and its arguments. `more`: source files to send into the container besides this package.
    """
    found: dict[str, str] = {}

    def started(image: str) -> Attached:
        client = connect()
        found[image] = found.get(image) or image_digest(client, image)
        return Attached(client, found[image], _options(runtime, command), code.payload(tuple(more)))

    return started


def check(program: Program) -> None:
    """Raise `UsageError` if a program's memory limit is above `LARGEST_MEMORY_BYTES`."""
    if program.limits and program.limits.memory_bytes > LARGEST_MEMORY_BYTES:
        raise UsageError(
            f"program {program.id}: memory_bytes {program.limits.memory_bytes} is more than backend docker's containers give "
            f"({LARGEST_MEMORY_BYTES})"
        )


@cache
def _client(pid: int, host: str | None) -> Any:
    import docker

    return docker.from_env(timeout=60)


def connect(patience: float = 0.0) -> Any:
    """A client of the daemon that DOCKER_HOST names, else of the local daemon. Raises `BackendUnavailable`.

    `patience`: seconds to wait for a daemon that has ended and may be restarting. If no daemon has run here, there is no wait.
    """
    try:
        from docker.errors import DockerException
    except ImportError as error:
        raise BackendUnavailable(
            f"backend docker needs the package docker: {error}; pip install docker"
        ) from error
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    deadline = time.monotonic() + patience
    while True:
        try:
            client = _client(os.getpid(), host)
            client.ping()
            return client
        except (DockerException, OSError) as error:
            if time.monotonic() < deadline and _left_behind(host):
                time.sleep(_RETRY_SECONDS)
                continue
            raise BackendUnavailable(
                f"the Docker daemon at {host} does not answer: {error}; start it (Debian, Ubuntu: systemctl start docker), set "
                "DOCKER_HOST to where it listens, or take backend bubblewrap"
            ) from error


def _left_behind(host: str) -> bool:
    """Whether `host` is a socket file without a listener. A daemon that has ended leaves one."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(host.removeprefix("unix://"))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def tag(image: str = COMMON) -> str:
    """The name of the Docker image for `image`, which sandboxes use. Its tag is a digest of everything that all its builds are built
    from. The build with the latest choice of further libraries has this name; see `build`."""
    return f"selftrain-sandbox-{image}:{_digest(image)}"


@cache
def _digest(image: str) -> str:
    """Digest of the Dockerfile, packages, node's build and modules, and the sources that are compiled into the image. This
    package's Python code is not part of it."""
    compiled = [(_SERVERS / name).read_text() for name in _COMPILED]
    node = [NODE_BUILDS, NODE_MODULES] if _has_node(image) else []
    made_of = [_dockerfile().decode(), _packages(image), node, compiled, inputs()]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _packages(image: str) -> list[str]:
    rows = [row for row in LANGUAGES.values() if row.image == image]
    return sorted({"python3", *(name for row in rows for name in (*row.packages, *row.libraries))})


def _has_node(image: str) -> bool:
    return "nodejs" in _packages(image)


def _dockerfile() -> bytes:
    return (code.PACKAGE / "images" / "Dockerfile").read_bytes()


def image_digest(client: Any, image: str = COMMON) -> str:
    """The image's id (`sha256:...`). Raises `ImageMissing` if the image is not built, `BackendUnavailable`."""
    from docker.errors import DockerException, ImageNotFound

    try:
        return str(client.images.get(tag(image)).id)
    except ImageNotFound as error:
        raise ImageMissing(
            f"the Docker image {tag(image)} is not there; build it with: python -m sandbox build {image}"
        ) from error
    except DockerException as error:
        raise BackendUnavailable(
            f"the Docker daemon does not say whether {tag(image)} is there: {error}"
        ) from error


def build(image: str = COMMON, choice: Choice = NOTHING) -> Iterator[str]:
    """Build an image, with the further libraries of `choice`; yields the daemon's output. Sandboxes that are opened later use it.

    The image also gets a name of its own, `chosen_tag`, so that it stays when another choice is built.
    Raises `BackendUnavailable`, `UsageError` for node's modules in an image without node.
    """
    from docker.errors import DockerException

    if choice.npm and not _has_node(image):
        raise UsageError(f"--npm: the image {image} has no node")
    client = connect()
    try:
        platform = machine(client.version()["Arch"])
        arguments = {"PACKAGES": " ".join(_packages(image)), "APT": " ".join(choice.apt)}
        with tempfile.TemporaryFile() as context:
            lacking = write_context(context, _has_node(image), choice, platform)
            yield from _built(client, context, chosen_tag(image, choice), arguments)
        client.images.get(chosen_tag(image, choice)).tag(*tag(image).split(":"))
        yield from lacking
    except DockerException as error:
        raise BackendUnavailable(f"the image could not be built: {error}") from error


def chosen_tag(image: str, choice: Choice) -> str:
    """The name of the image with the further libraries of `choice`; `tag` if there are none."""
    return f"{tag(image)}-{choice.digest()}" if choice else tag(image)


def _built(client: Any, context: IO[bytes], name: str, arguments: Mapping[str, str]) -> Iterator[str]:
    """Let the daemon build the image `name`; yields its output. Raises `BackendUnavailable`, `DockerException`."""
    last = ""
    # With the host's network the build can reach the host's package mirrors.
    for message in client.api.build(
        fileobj=context,
        custom_context=True,
        tag=name,
        buildargs=arguments,
        rm=True,
        forcerm=True,
        network_mode="host",
        decode=True,
    ):
        last = message.get("error") or message.get("stream", "").rstrip() or last
        if "error" in message:
            hint = (
                "; where no registry can be reached, infra/base_image.sh makes debian:bookworm-slim from Debian packages"
                if "pull" in last or "registry" in last or "lookup" in last or "manifest" in last
                else ""
            )
            raise BackendUnavailable(f"the image could not be built: {last}{hint}")
        if message.get("stream", "").strip():
            yield message["stream"].rstrip()


def write_context(file: IO[bytes], node: bool, choice: Choice, platform: str) -> list[str]:
    """Write the build context of an image (a tar file) into `file`. `platform`: the image's processor, see `choice.machine`.

    Returns a message for each thing of node's that could not be fetched. Raises `BackendUnavailable` if a library of `choice`
    cannot be fetched.
    """
    files, lacking = npm.of_node(platform) if node else ([], [])
    files += [(name, path.read_bytes()) for name, path in code.sources()]
    files.append(("Dockerfile", _dockerfile()))
    with tarfile.open(fileobj=file, mode="w") as archive, tempfile.TemporaryDirectory() as chosen:
        for name in ("node", "modules"):  # the Dockerfile needs these folders, even if they are empty
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if name == npm.NODE else 0o644
            archive.addfile(entry, io.BytesIO(content))
        fetch(choice, platform, Path(chosen))
        archive.add(chosen, "chosen", filter=_plain)
    file.seek(0)
    return lacking


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """A file or folder as root's, readable for all; None, which leaves it out, for links and other kinds."""
    if not (entry.isfile() or entry.isdir()):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


class Attached:
    """A started container and its standard streams (https://docs.docker.com/engine/api: attach).

    The container lives as long as the connection. When the client dies in any way, the container's stdin closes, the runner ends,
    and the daemon removes the container.
    """

    def __init__(self, client: Any, image: str, options: Mapping[str, Any], payload: bytes) -> None:
        from docker.errors import DockerException

        self._buffer = b""
        self._stderr: deque[bytes] = deque(maxlen=_KEPT_STDERR)
        try:
            self._container = client.containers.create(image, **options)
        except (DockerException, OSError) as error:
            raise SandboxError(f"cannot make a container: {error}") from error
        try:
            wanted = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            attached = client.api.attach_socket(self._container.id, params=wanted)
            self._response = attached
            self._socket: socket.socket = getattr(attached, "_sock", attached)
            self._container.start()
            self.send(payload)
        except (DockerException, OSError) as error:
            self.kill()  # the daemon's auto_remove does not apply to a container that never ran
            raise SandboxError(f"cannot start a container: {error}") from error

    def send(self, data: bytes) -> None:
        self._socket.settimeout(GOODBYE_SECONDS)
        self._socket.sendall(data)

    def receive(self, deadline: float) -> bytes:
        while True:
            if (frame := self._frame()) is None:
                wait_readable(self._socket.fileno(), deadline)
                data = self._socket.recv(1 << 16)
                if not data:
                    said = b"".join(self._stderr).decode("utf-8", "replace").strip()
                    raise SandboxError(
                        f"its container ended unexpectedly{': ' if said else ''}{said[-1000:]}"
                    )
                self._buffer += data
            elif frame[0] == _STDOUT:
                return frame[1]
            else:
                self._stderr.append(frame[1])

    def _frame(self) -> tuple[int, bytes] | None:
        """The next complete frame in the buffer as (number of the stream, bytes); None if there is none yet."""
        if len(self._buffer) < 8:
            return None
        stream, size = struct.unpack(">BxxxL", self._buffer[:8])
        if len(self._buffer) < 8 + size:
            return None
        data, self._buffer = self._buffer[8 : 8 + size], self._buffer[8 + size :]
        return stream, data

    def hang_up(self) -> None:
        from docker.errors import DockerException

        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(DockerException, OSError):
            self._container.wait(timeout=GOODBYE_SECONDS)
            return
        self.kill()

    def kill(self) -> None:
        from docker.errors import DockerException

        with contextlib.suppress(DockerException, OSError):
            self._container.remove(force=True)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._response.close()
            self._socket.close()


def _options(runtime: str | None, command: Sequence[str]) -> dict[str, Any]:
    # Mount options of the writable file systems in memory; exec, because compiled programs run from them.
    place = f"rw,exec,nosuid,nodev,size={FILES_BYTES},nr_inodes={FILES_COUNT}"
    return {
        "stdin_open": True,
        "auto_remove": True,
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "cap_add": _CAPABILITIES,
        "security_opt": ["no-new-privileges"],
        "mem_limit": MEMORY_BYTES,
        "memswap_limit": MEMORY_BYTES,
        "pids_limit": PROCESSES,
        "ipc_mode": "private",
        "tmpfs": {
            code.ROOT: f"rw,noexec,nosuid,nodev,size={_CODE_BYTES},nr_inodes={_CODE_FILES},mode=0755",
            "/sandbox": f"{place},mode=0711",
            "/tmp": f"{place},mode=1777",  # noqa: S108
            "/dev/shm": f"{place},mode=1777",  # noqa: S108
        },
        "hostname": "sandbox",
        "user": "0:0",
        "labels": {LABEL: str(os.getpid())},
        "log_config": {"type": "none"},
        # The kernel counts a user's processes over all containers, so each container gets its own range of users.
        "environment": {"SANDBOX_UIDS": str(1_000_000 + 100_000 * secrets.randbelow(20_000))},
        **({"runtime": runtime} if runtime else {}),
        "entrypoint": ["python3", "-c", code.BOOTSTRAP, *command],
    }
