"""Tests of backend docker: lost containers and daemons, memory kills by the kernel, precompiled headers, node's snapshot."""

import contextlib
import os
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.backends import docker
from sandbox.client import Sandbox
from sandbox.errors import BackendUnavailable, SandboxError, ToolsMissing, UsageError
from sandbox.languages import MORE
from sandbox.verdicts import MIB, Limits, Program, Result, Verdict
from tests.command import ROOT
from tests.sandbox.conftest import need_backend

LIMITS = Limits(cpu_seconds=2, wall_seconds=10, memory_bytes=200 * MIB)


@pytest.fixture(scope="module")
def contained() -> Iterator[Sandbox]:
    need_backend("docker")
    with Sandbox("docker") as made:
        yield made


def judge(sandbox: Sandbox, source: str, language: str = "py", limits: Limits = LIMITS) -> Result:
    (result,) = sandbox.run([Program("x", language, source, limits=limits)])
    return result


def containers(all: bool = False) -> list[Any]:
    """The containers of this process's sandboxes, running or `all`."""
    ours = {"label": f"{docker.LABEL}={os.getpid()}"}
    return list(docker.connect().containers.list(all=all, filters=ours, ignore_removed=True))


def test_every_program_is_another_user(contained: Sandbox) -> None:
    first, second = (judge(contained, "import os; print(os.getuid())" + "\n" * n).stdout for n in (0, 1))
    assert int(second) == int(first) + 1 > 1_000_000


def test_a_killed_container_is_replaced_and_its_program_judged_again() -> None:
    need_backend("docker")
    with Sandbox("docker") as sandbox:
        before = set(containers())
        assert judge(sandbox, "print(1)").verdict is Verdict.passed
        (own,) = set(containers()) - before
        threading.Timer(0.5, own.kill).start()
        assert judge(sandbox, "import time; time.sleep(2)").verdict is Verdict.passed
        (other,) = set(containers()) - before
        assert other != own
    assert set(containers()) <= before


def test_a_daemon_that_is_gone_ends_the_run_and_labels_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon is behind a relay, which closes while programs run and opens again later."""
    need_backend("docker")
    there = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    monkeypatch.setattr("sandbox.client._PAUSE_SECONDS", 0.1)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/relay.sock")
    programs = [Program(str(n), "py", f"import time; time.sleep(0.2) #{n}") for n in range(20)]
    relay = Relay(tmp_path / "relay.sock", there)
    results: list[Result] = []

    def judge_all() -> None:
        for result in sandbox.run(programs):
            results.append(result)
            if len(results) == 4:
                relay.close()

    with Sandbox("docker", workers=2) as sandbox:
        with pytest.raises(BackendUnavailable, match=r"relay.sock does not answer"):
            judge_all()
        assert 4 <= len(results) < 20
        relay = Relay(tmp_path / "relay.sock", there)
        results += sandbox.run(programs[len(results) :])
    relay.close()
    assert {result.verdict for result in results} == {Verdict.passed}


class Relay:
    """A socket that forwards everything to and from the socket at `there`."""

    def __init__(self, here: Path, there: str) -> None:
        here.unlink(missing_ok=True)
        self.there, self.open = there, []
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(here))
        self.server.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                pair = (self.server.accept()[0], socket.socket(socket.AF_UNIX))
                pair[1].connect(self.there)
                self.open += pair
                for source, target in (pair, pair[::-1]):
                    threading.Thread(target=self.pump, args=(source, target), daemon=True).start()

    def pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket and all connections."""
        for one in (self.server, *self.open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def test_what_cannot_be_cleared_away_ends_with_its_container(contained: Sandbox) -> None:
    """System V shared memory outlives its processes, and only its owner may remove it, so the container is replaced. Programs may
    not make any (`sandbox.seccomp`), so the test makes it, in the place of a program that found a way."""
    look = "print(len(open('/proc/sysvipc/shm').readlines()) - 1)"
    assert judge(contained, look).stdout == "0\n"
    before = set(containers())
    make = "import ctypes\nassert ctypes.CDLL(None).shmget(4711, 4096, 0o1666) >= 0"
    for container in before:
        assert container.exec_run(["python3", "-c", make]).exit_code == 0
    assert judge(contained, look).stdout == "1\n"
    assert judge(contained, look + "  # in another container").stdout == "0\n"
    assert set(containers()) != before


def test_a_memory_kill_by_the_kernel_is_told(contained: Sandbox) -> None:
    """Files in memory count for the container and for no process, so only the kernel notices them."""
    fill = """
import os
for place in ("/tmp", "/dev/shm"):
    with open(f"{place}/x", "wb") as file:
        for _ in range(200): file.write(bytes(1 << 20))
blocks = []
for _ in range(40):
    if os.fork() == 0:
        block = bytearray(os.urandom(1 << 20)) * 180
        while True: pass
os.wait()
raise SystemExit(1)
"""
    limits = Limits(cpu_seconds=60, wall_seconds=60, memory_bytes=2048 * MIB, file_bytes=256 * MIB)
    assert judge(contained, fill, limits=limits).verdict is Verdict.memory_exceeded
    assert judge(contained, "print(1)").verdict is Verdict.passed


def test_places_are_limited_in_files_too(contained: Sandbox) -> None:
    source = f"for n in range({docker.FILES_COUNT + 1}): open(f'/tmp/{{n}}', 'w')"
    result = judge(contained, source)
    assert (result.verdict, "No space left" in result.stderr) == (Verdict.runtime_error, True)
    assert judge(contained, "import os; print(os.listdir('/tmp'))").stdout == "[]\n"


@pytest.mark.parametrize(
    "source",
    [
        "import os; os.kill(1, 9)",
        "open('/proc/1/environ').read()",
        "open('/proc/1/mem', 'rb').read(1)",
        "open('/opt/sandbox/sandbox/runner.py', 'a')",
        "import os; os.unlink('/opt/sandbox/sandbox/runner.py')",
        "import os; os.rename('/opt/sandbox/sandbox', '/opt/sandbox/other')",
        "open('/opt/sandbox/json.py', 'w')",
        "import os, glob; [one] = glob.glob('/opt/sandbox/sandbox/__pycache__/judge.*'); open(one, 'r+b')",
        "open('/opt/servers/JavaCompile.class', 'a')",
        "open('/sandbox/x', 'w')",
        "import os; os.listdir('/sandbox')",
        "import os; os.setuid(0)",
        "import socket; socket.create_connection(('1.1.1.1', 53), 2)",
        "import socket; socket.getaddrinfo('example.org', 80)",
        "import socket; socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
        "open('/proc/sys/kernel/core_pattern', 'w')",
        "open('/sys/fs/cgroup/memory/memory.limit_in_bytes', 'w').write('-1')",
        "import os; os.mknod('/tmp/sda', 0o60600, os.makedev(8, 0))",
        "import ctypes; assert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
        "import ctypes; assert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0",
        "import subprocess; subprocess.run(['su', '-c', 'true'], check=True, stdin=subprocess.DEVNULL)",
    ],
)
def test_the_runner_and_the_kernel_are_out_of_reach(contained: Sandbox, source: str) -> None:
    assert judge(contained, source).verdict in (Verdict.runtime_error, Verdict.wrong_answer)
    assert judge(contained, "print('next')").stdout == "next\n"


@pytest.mark.parametrize(
    ("language", "first", "second", "verdict"),
    [
        ("ts", "interface Array<T> { leak: number }", "let x: number[] = []; x.leak;", Verdict.compile_error),
        ("ts", "var leaked = 1;", "leaked = 2;", Verdict.compile_error),
        (
            "cs",
            "class Leak { static void Main() { } }",
            "class P { static void Main() { new Leak(); } }",
            Verdict.compile_error,
        ),
        (
            "cs",
            "#define LEAK\nclass P { static void Main() { } }",
            "#if LEAK\n#error leaked\n#endif\nclass P { static void Main() { } }",
            Verdict.passed,
        ),
        (
            "java",
            "class Leak { }\nclass Main { public static void main(String[] a) { } }",
            "class Main { public static void main(String[] a) { new Leak(); } }",
            Verdict.compile_error,
        ),
    ],
)
def test_a_compiler_keeps_nothing_of_a_program(
    contained: Sandbox, language: str, first: str, second: str, verdict: Verdict
) -> None:
    assert judge(contained, first, language, Limits()).verdict is Verdict.passed
    assert judge(contained, second, language, Limits()).verdict is verdict


def test_node_starts_the_same_with_and_without_its_snapshot(contained: Sandbox) -> None:
    """There is a snapshot only for the default memory limit."""
    source = """
const assert = require('node:assert');
console.log(typeof require, module.id, require.main === module, process.argv.length, __filename.split('/').pop());
console.log(Object.keys(process.env).sort().join(), typeof structuredClone, typeof fetch, Math.random() < 1);
console.log(require('fs').readFileSync(0, 'utf8'), [...process.stdout.constructor.name].length);
assert.throws(() => assert.deepEqual([1], [2]), { name: 'AssertionError' });
setTimeout(() => Promise.resolve().then(() => { console.error('late'); process.exitCode = 3; }), 1);
"""
    usual, other = (judge(contained, source, "js", limits) for limits in (Limits(), LIMITS))
    assert (usual.exit_code, usual.stdout, usual.stderr) == (other.exit_code, other.stdout, other.stderr)
    assert (usual.exit_code, usual.stderr) == (3, "late\n")


def test_programs_that_speak_of_futures_have_them(contained: Sandbox) -> None:
    """The usual precompiled header lacks <future> and <filesystem>; programs that use them get another one."""
    source = """#include<bits/stdc++.h>
using namespace std;
int main() { auto f = async(launch::deferred, [] { return 4; }); cout << f.get() << filesystem::path("a/b").filename(); }
"""
    assert judge(contained, source, "cpp", Limits()).stdout == '4"b"'
    own = "#include<bits/stdc++.h>\nusing namespace std;\nstruct path { int future; };\nint main() { path p{3}; cout << p.future; }"
    assert judge(contained, own, "cpp", Limits()).stdout == "3"


def test_no_file_lends_its_owner_or_group(contained: Sandbox) -> None:
    found = judge(contained, "find / -xdev -type f -perm /6000 2>/dev/null || true", "sh")
    assert (found.verdict, found.stdout) == (Verdict.passed, "")


def test_more_memory_than_a_container_has_is_a_mistake(contained: Sandbox) -> None:
    with pytest.raises(UsageError, match="memory_bytes"):
        judge(contained, "print(1)", limits=Limits(memory_bytes=docker.MEMORY_BYTES))


def test_a_daemon_that_is_not_there_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(BackendUnavailable, match=r"unix:///nowhere/docker.sock does not answer.*bubblewrap"):
        Sandbox("docker")


def test_a_language_whose_image_is_not_built_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    need_backend("docker")
    tag = docker.tag
    monkeypatch.setattr(docker, "tag", lambda image: tag(image) + ("-none" if image == MORE else ""))
    with Sandbox("docker") as sandbox, pytest.raises(ToolsMissing, match="python -m sandbox build more"):
        sandbox.need("hs")


def test_an_image_that_is_not_built_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    need_backend("docker")
    monkeypatch.setattr(docker, "tag", lambda image: f"selftrain-sandbox-{image}:none")
    with pytest.raises(BackendUnavailable, match="python -m sandbox build"):
        Sandbox("docker")


def test_a_container_that_cannot_be_started_is_told_and_not_left_behind() -> None:
    need_backend("docker")
    failed = pytest.raises(SandboxError, match=r"cannot (make|start) a container")
    with Sandbox("docker", docker_runtime="nowhere") as sandbox, failed:
        sandbox.identity("py")
    # Others of this process may be about to start.
    runtimes = [container.attrs["HostConfig"]["Runtime"] for container in containers(all=True)]
    assert "nowhere" not in runtimes


def test_a_daemon_that_is_restarted_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_backend("docker")
    real = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    left, new = tmp_path / "left", tmp_path / "new"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{left}")
    with pytest.raises(BackendUnavailable, match="does not answer"):
        Sandbox("docker", patience=600)  # there never was one
    with socket.socket(socket.AF_UNIX) as ended:
        ended.bind(str(left))
    new.symlink_to(real)
    back = threading.Timer(1, lambda: new.rename(left))
    back.start()
    try:
        with Sandbox("auto", patience=60) as sandbox:
            assert sandbox.backend == "docker"
    finally:
        back.join()


def relay(client: ssl.SSLSocket, daemon: socket.socket) -> None:
    """Copy both ways until the daemon ends the connection; the end of the client's half is passed on."""
    sources: list[Any] = [client, daemon]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if client in ready:
            if data := client.recv(1 << 16):
                daemon.sendall(data)
            else:
                sources.remove(client)
                daemon.shutdown(socket.SHUT_WR)
        if daemon in ready:
            if not (data := daemon.recv(1 << 16)):
                return
            client.sendall(data)


@contextlib.contextmanager
def behind_tls(certificates: Path) -> Iterator[str]:
    """The daemon of DOCKER_HOST behind TLS with certificates on both sides; its URL."""
    path = (os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock").removeprefix("unix://")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificates / "server-cert.pem", certificates / "server-key.pem")

    def serve(accepted: socket.socket) -> None:
        with contextlib.suppress(OSError), accepted, socket.socket(socket.AF_UNIX) as daemon:
            daemon.connect(path)
            with context.wrap_socket(accepted, server_side=True) as client:
                relay(client, daemon)

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_programs_run_in_a_daemon_behind_tls_which_lets_in_known_clients_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_backend("docker")
    shutil.copy(ROOT / "infra" / "kubernetes" / "secrets.sh", tmp_path)
    subprocess.run([tmp_path / "secrets.sh"], check=True, capture_output=True)
    made, client = tmp_path / "secrets", tmp_path / "client"
    client.mkdir()
    for name, source in (("ca", "ca"), ("cert", "client-cert"), ("key", "client-key")):
        shutil.copy(made / f"{source}.pem", client / f"{name}.pem")
    for name in (
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
    ):  # requests takes them rather than the client's own authority
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(client))
    with behind_tls(made) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        with Sandbox("docker") as sandbox:
            results = [judge(sandbox, source) for source in ("print('x' * 60_000)", "assert False")]
            closing = time.monotonic()
        assert [result.verdict for result in results] == [Verdict.passed, Verdict.wrong_answer]
        assert len(results[0].stdout) >= 60_000
        assert time.monotonic() - closing < docker.GOODBYE_SECONDS, (
            "its worker hears that the client has gone"
        )
    with behind_tls(made) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        for name in ("cert", "key"):  # a certificate of the same authority, but not a client's
            shutil.copy(made / f"server-{name}.pem", client / f"{name}.pem")
        with pytest.raises(BackendUnavailable, match="does not answer"):
            Sandbox("docker")
