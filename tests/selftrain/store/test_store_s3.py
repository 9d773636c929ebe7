"""Tests of the store on a real S3 server: complete artifacts, leases, bad connections, and secrets that are not leaked."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from selftrain.errors import CorruptArtifact, StoreError, StoreRefused, UsageError
from selftrain.stage import ArtifactRef, Outcome
from selftrain.store import files as files_module
from selftrain.store.artifact_cache import ArtifactCache
from selftrain.store.files import Files, s3_tag
from selftrain.store.store import Store
from tests.servers import BUCKET, SECRET_KEY, S3Server, flaky, moto

REF = ArtifactRef("sft", "0123456789abcdef0123456789abcdef")
MIB = 1 << 20


@pytest.fixture
def url(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty store on the server, which this process and its children find and may use."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.store()


def write(folder: Path, who: str = "one") -> Outcome:
    """A build: three files that say whose they are."""
    for name in ("a.txt", "model/b.txt", "model/c.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{who} {name}")
    return Outcome("digest")


def whose(store: Store, ref: ArtifactRef = REF) -> set[str]:
    """Who wrote the files of an artifact."""
    folder = store.path(ref)
    return {path.read_text().split()[0] for path in folder.rglob("*.txt")}


BUILDER = """
    import json, sys, time
    from pathlib import Path
    from selftrain.store import lease
    from selftrain.stage import ArtifactRef, Outcome
    from selftrain.store.store import Store

    url, local, seconds, who, ref, options, expiry = sys.argv[1:]
    lease.BEAT, lease.EXPIRY, lease.POLL = 0.3, float(expiry), 0.2

    def make(folder):
        print("building", flush=True)
        time.sleep(float(seconds))
        for name in ("a.txt", "model/b.txt", "model/c.txt"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(f"{who} {name}")
        print("built", flush=True)
        return Outcome("digest")

    ref = ArtifactRef(*ref.split("/"))
    print(Store(url, Path(local), json.loads(options)).build(ref, {}, make), flush=True)
"""


def builder(
    url: str, local: Path, seconds: float, who: str, options: dict[str, str] | None = None, expiry: float = 5
) -> "subprocess.Popen[str]":
    """A process that builds `REF`, which takes it `seconds`, on the machine whose folder is `local`.

    It waits for `expiry` seconds for a lease whose holder is silent.
    """
    arguments = [url, str(local), str(seconds), who, str(REF), json.dumps(options or {}), str(expiry)]
    command = [sys.executable, "-c", textwrap.dedent(BUILDER), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(process: "subprocess.Popen[str]") -> list[str]:
    """What a builder said until its end."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert SECRET_KEY not in out + err
    return out.split()


def line(process: "subprocess.Popen[str]") -> str:
    """The next line that a builder says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_of_two_machines_one_builds_and_the_other_takes_its_result(url: str, tmp_path: Path):
    both = [builder(url, tmp_path / who, 2, who) for who in ("one", "two")]
    told = sorted(map(said, both), key=len)
    assert told == [["False"], ["building", "built", "True"]]
    assert len(whose(Store(url, tmp_path / "three"))) == 1


def test_a_killed_holders_lease_expires_and_on_its_own_machine_at_once(url: str, tmp_path: Path):
    killed = builder(url, tmp_path / "one", 600, "one")
    assert line(killed) == "building"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    elsewhere = builder(url, tmp_path / "two", 600, "two")
    assert line(elsewhere) == "building", "the lease of the killed one is void after a while"
    elsewhere.send_signal(signal.SIGKILL)
    elsewhere.communicate()
    again = builder(url, tmp_path / "two", 0, "two", expiry=3600)
    assert said(again) == ["building", "built", "True"]
    assert whose(Store(url, tmp_path / "three")) == {"two"}
    assert not [name for name in Store(url, tmp_path / "x").files.listing(f"{url[5:]}") if "lease" in name]


def test_a_holder_that_was_paused_mixes_nothing_with_who_took_over(url: str, tmp_path: Path):
    paused = builder(url, tmp_path / "one", 2, "one")
    assert line(paused) == "building"
    paused.send_signal(signal.SIGSTOP)
    other = builder(url, tmp_path / "two", 0, "two")
    assert said(other) == ["building", "built", "True"]
    assert whose(Store(url, tmp_path / "three")) == {"two"}
    paused.send_signal(signal.SIGCONT)
    assert said(paused) == ["built", "True"]
    store = Store(url, tmp_path / "four")
    assert store.has(REF)
    assert whose(store) == {"one"}, "the last manifest counts, and names its own files only"
    attempts = {name.split("/")[2] for name in store.files.listing(store.root) if name.endswith(".txt")}
    assert len(attempts) == 2, "what the other wrote is left to gc"


def test_an_upload_that_is_killed_leaves_no_artifact_and_the_next_works(
    url: str, s3: S3Server, tmp_path: Path
):
    watching = Store(url, tmp_path / "watching")
    with flaky(s3.url, failed=0, slow=1, delay=0.2) as proxy:
        killed = builder(url, tmp_path / "one", 0, "one", {"endpoint_url": proxy.url})
        deadline = time.monotonic() + 60
        while not [name for name in watching.files.listing(watching.root) if name.endswith("a.txt")]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    left = [name for name in watching.files.listing(watching.root) if name.endswith(".txt")]
    assert 0 < len(left) < 3, "it ended in the middle"
    assert not watching.has(REF)
    with pytest.raises(CorruptArtifact, match="no manifest"):
        watching.path(REF)
    assert said(builder(url, tmp_path / "one", 0, "again")) == ["building", "built", "True"]
    assert whose(watching) == {"again"}


def test_a_bad_connection_changes_nothing(
    url: str, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(files_module, "PART", 5 * MIB)
    large = os.urandom(12 * MIB)

    def make(folder: Path) -> Outcome:
        (folder / "weights").write_bytes(large)
        return write(folder)

    with flaky(s3.url, delay=0.2, seed=1) as proxy:
        store = Store(url, tmp_path / "one", {"endpoint_url": proxy.url})
        assert store.build(REF, {}, make)
        (tmp_path / "part").write_text("part")
        store.put_progress(ArtifactRef("sft", "f" * 32), "part", tmp_path / "part")
        other = Store(url, tmp_path / "two", {"endpoint_url": proxy.url})
        assert other.has(REF)
        assert (other.path(REF) / "weights").read_bytes() == large
        assert proxy.spoiled > 4, "a fifth of the requests"
    plain = Store(url, tmp_path / "three")
    manifest = plain.manifest(REF)
    assert manifest is not None
    assert manifest["files"]["weights"]["tag"].endswith("-3"), "sent in three parts"
    assert (plain.path(REF) / "weights").read_bytes() == large


def test_the_servers_tag_is_the_md5_of_what_was_sent(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(files_module, "PART", 5 * MIB)
    (tmp_path / "small").write_text("hello")
    (tmp_path / "large").write_bytes(bytes(11 * MIB))
    (tmp_path / "empty").write_text("")
    files = Files(url)
    for name in ("small", "large", "empty"):
        files.upload(tmp_path / name, f"{files.root}/{name}")
    found = files.listing(files.root)
    assert s3_tag(tmp_path / "small") == "5d41402abc4b2a76b9719d911017c592"  # printf hello | md5sum
    assert {name: info["ETag"].strip('"') for name, info in found.items()} == {
        name: s3_tag(tmp_path / name) for name in ("small", "large", "empty")
    }


def overwrite(store: Store, name: str, content: bytes) -> dict[str, Any]:
    """Put other content in the place of a stored file; the manifest."""
    manifest = store.manifest(REF)
    assert manifest is not None
    store.files.write(store._join(REF, manifest["attempt"], name), content)
    return manifest


def test_another_files_tag_is_noticed_without_reading_the_artifact(url: str, s3: S3Server, tmp_path: Path):
    store = Store(url, tmp_path / "one")
    store.build(REF, {}, write)
    with flaky(s3.url, failed=0, slow=0) as proxy:
        counted = Store(url, tmp_path / "two", {"endpoint_url": proxy.url})
        assert counted.has(REF)
        asked = proxy.seen
    assert asked <= 3, "the manifest and one listing, however many files there are"
    overwrite(store, "a.txt", b"one b.txt")
    assert not store.has(REF)


def test_a_bit_that_the_server_does_not_notice_is_noticed_by_who_reads(url: str, tmp_path: Path):
    store = Store(url, tmp_path / "one")
    store.build(REF, {}, write)
    manifest = overwrite(store, "a.txt", b"one a.txu")
    now = store.files.listing(store._join(REF, manifest["attempt"]))["a.txt"]["ETag"].strip('"')
    manifest["files"]["a.txt"]["tag"] = now  # as if it had always said so of these bytes
    store.files.write(store._join(REF, "manifest.json"), json.dumps(manifest).encode())
    reader = Store(url, tmp_path / "two")
    assert reader.has(REF), "size and tag are right"
    with pytest.raises(CorruptArtifact, match=r"a\.txt is not what was stored") as raised:
        reader.path(REF)
    assert raised.value.artifact == str(REF)
    assert not store.has(REF), "so that it is rebuilt"
    assert store.build(REF, {}, write)
    assert whose(reader) == {"one"}


def test_a_lost_file_is_noticed(url: str, tmp_path: Path):
    store = Store(url, tmp_path / "one")
    store.build(REF, {}, write)
    manifest = store.manifest(REF)
    assert manifest is not None
    store.files.delete(store._join(REF, manifest["attempt"], "a.txt"))
    assert not store.has(REF)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key": "tests", "secret": "wrong-secret-of-somebody"}, "signature .* does not match"),
        ({"key": "nobody-known", "secret": "wrong-secret-of-somebody"}, "(?i)access key id"),
        ({"secret": "wrong-secret-of-somebody"}, "PartialCredentialsError.*AWS_ACCESS_KEY_ID"),
        ({"bucket": "no-such-bucket"}, "bucket does not exist"),
    ],
)
def test_what_is_refused_is_told_at_once_and_no_secret_is(
    url: str, tmp_path: Path, change: dict[str, str], said: str
):
    if bucket := change.pop("bucket", None):
        url = f"s3://{bucket}/store"
    store = Store(url, tmp_path / "one", change)
    started = time.monotonic()
    with pytest.raises(StoreRefused, match=said) as raised:
        store.build(REF, {}, write)
    assert time.monotonic() - started < 20, "no try was repeated"
    assert not raised.value.retryable
    assert url in str(raised.value)
    for secret in (SECRET_KEY, "wrong-secret-of-somebody"):
        assert secret not in str(raised.value)


ALL = {"GET", "HEAD", "PUT", "POST", "DELETE"}


@pytest.mark.parametrize(
    ("methods", "status", "code", "remedy"),
    [
        (ALL, 400, "ExpiredToken", "the credentials have expired"),
        (ALL, 400, "InvalidToken", "AWS_SESSION_TOKEN does not go with"),
        (ALL, 403, "InvalidAccessKeyId", "check AWS_ACCESS_KEY_ID"),
        (ALL, 403, "SignatureDoesNotMatch", "the secret is not the key's"),
        (ALL, 403, "RequestTimeTooSkewed", "clock"),
        (ALL, 403, "AccessDenied", "s3:ListBucket"),
        ({"PUT"}, 403, "AccessDenied", "s3:PutObject"),
        (ALL, 400, "AuthorizationHeaderMalformed", "AWS_DEFAULT_REGION"),
        ({"GET", "PUT"}, 301, "PermanentRedirect", "AWS_DEFAULT_REGION"),
        (ALL, 301, "RecursionError", "AWS_DEFAULT_REGION"),
        (ALL, 404, "NoSuchBucket", "make it"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_a_server_refuses_is_told_by_its_name_with_what_to_do(
    s3: S3Server, tmp_path: Path, methods: set[str], status: int, code: str, remedy: str
):
    with flaky(s3.url, failed=0, slow=0) as proxy:
        store = Store(s3.store(), tmp_path, s3.options | {"endpoint_url": proxy.url})
        proxy.refused = methods, status, code
        with pytest.raises(StoreRefused) as raised:
            store.build(REF, {}, write)
    said = str(raised.value)
    assert f"{code}: {'maximum' if code == 'RecursionError' else 'spoiled; '}" in said
    assert remedy in said
    assert status == 301 or proxy.seen < 12, "nothing is tried again and again"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://b//p", r"two slashes in a row.*write s3://b/p$"),
        ("s3://b/p//q/", r"write s3://b/p/q$"),
        ("s3a://b///p", r"write s3a://b/p$"),
        ("s3:/b/p", r"write s3://b/p$"),
        ("s3:b/p", r"write s3://b/p$"),
        ("s3:///b/p", r"names no bucket.*write s3://b/p$"),
        ("s3://", r"names no bucket; expected s3://BUCKET/PATH$"),
        (" s3://b/p", r"blank; write s3://b/p$"),
        ("s3://b/p\n", r"blank; write s3://b/p$"),
        ("S3://b/p", r"write s3://b/p$"),
        ("s4://b/p", r"Protocol not known: s4; expected a folder"),
        ("http://127.0.0.1:9000/b/p", r"expected s3://BUCKET/PATH.*AWS_ENDPOINT_URL"),
        ("https://b.s3.amazonaws.com/p", r"expected s3://BUCKET/PATH"),
        ("s3://127.0.0.1:9000/b/p", r"got '127.0.0.1:9000' for the bucket.*AWS_ENDPOINT_URL"),
        ("s3://b/p?region=eu-west-1", r"no options, got region; set AWS_DEFAULT_REGION"),
        ("s3://b/../p", r"no folders . and .."),
        ("", r"expected a folder"),
    ],
)
def test_an_address_that_cannot_be_is_told_before_anything_is_asked(url: str, said: str):
    with pytest.raises(UsageError, match=said):
        Files(url)


@pytest.mark.parametrize("path", ["plain", "slash/", "slashes//", "my störe/a b", "100%/a+b#c?d", "a:b"])
def test_unusual_addresses_work(url: str, tmp_path: Path, path: str):
    store = Store(f"{url}/{path}", tmp_path / "one")
    assert store.build(REF, {}, write)
    assert whose(Store(f"{url}/{path}", tmp_path / "two")) == {"one"}
    assert [manifest["key"] for manifest in store.manifests("sft")] == [REF.key]


@pytest.mark.parametrize("bucket", ["under_score", "Upper-Case"])
def test_a_bucket_with_an_unusual_name_that_is_not_there(url: str, tmp_path: Path, bucket: str):
    with pytest.raises(StoreRefused, match=rf"bucket '{bucket}'.*small letters"):
        Store(f"s3://{bucket}/store", tmp_path).has(REF)


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(UsageError, match="store_block") as raised:
        Store(f"s3://somebody:{SECRET_KEY}@{BUCKET}/store")
    assert SECRET_KEY not in str(raised.value)


def test_no_secret_is_kept(url: str, tmp_path: Path):
    store = Store(url, tmp_path / "local", {"key": "tests", "secret": SECRET_KEY})
    store.build(REF, {}, write)
    (tmp_path / "part").write_text("part")
    store.put_progress(ArtifactRef("sft", "f" * 32), "part", tmp_path / "part")
    kept = [store.files.read(f"{store.root}/{name}") for name in store.files.listing(store.root)]
    kept += [path.read_bytes() for path in (tmp_path / "local").rglob("*") if path.is_file()]
    assert len(kept) > 8
    assert not [content for content in kept if SECRET_KEY.encode() in content]
    assert SECRET_KEY not in repr(store)


def test_exclusive_creation_is_tried_out(url: str, tmp_path: Path):
    assert Files(url).exact, "SeaweedFS knows If-None-Match"
    with moto() as server:
        files = Files(server.store(), server.options)
        assert files.exact
        assert files.create(f"{files.root}/x", b"mine")
        assert files.create(f"{files.root}/x", b"mine"), "the answer was lost, not the creation"
        assert not files.create(f"{files.root}/x", b"another's")
    local = Files(str(tmp_path))
    assert local.create(f"{tmp_path}/x", b"mine")
    assert not local.create(f"{tmp_path}/x", b"another's")


class Overwrites(Files):
    """A server that takes no notice of If-None-Match."""

    def create(self, path: str, content: bytes) -> bool:
        """Put it there, whatever was there."""
        self.write(path, content)
        return self.read(path) == content


def test_where_a_server_overwrites_one_of_two_still_gets_the_lease(url: str, monkeypatch: pytest.MonkeyPatch):
    import threading

    from selftrain.store import lease

    monkeypatch.setattr(lease, "SETTLE", 0.5)
    monkeypatch.setattr(lease, "POLL", 0.1)
    assert not Overwrites(url).exact
    inside, most = 0, 0

    def hold(machine: str) -> None:
        nonlocal inside, most
        files = Overwrites(url)
        with lease.held(files, f"{files.root}/lease", machine):
            inside += 1
            most = max(most, inside)
            time.sleep(1)
            inside -= 1

    both = [threading.Thread(target=hold, args=(machine,)) for machine in ("one", "two")]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(60)
    assert (inside, most) == (0, 1)


def test_copies_make_room_but_not_of_what_is_used(url: str, tmp_path: Path):
    writer = Store(url, tmp_path / "writer")
    refs = [ArtifactRef("sft", str(number) * 32) for number in range(4)]

    def make(folder: Path) -> Outcome:
        (folder / "data").write_bytes(os.urandom(MIB))
        return Outcome("digest")

    for ref in refs:
        writer.build(ref, {}, make)

    def read(ref: ArtifactRef) -> Path:
        """As a process of its own would: what it uses is free at its end."""
        return Store(url, tmp_path / "reader", cache_gib=2.5 / 1024).path(ref)

    first, second = read(refs[0]), read(refs[1])
    assert first.is_dir()
    time.sleep(0.02)
    read(refs[0])  # used later than the second
    third = read(refs[2])
    assert [folder.is_dir() for folder in (first, second, third)] == [True, False, True]
    user = Store(url, tmp_path / "reader", cache_gib=2.5 / 1024)
    user.path(refs[0])
    time.sleep(0.02)
    read(refs[2])
    fourth = read(refs[3])
    assert [folder.is_dir() for folder in (first, third, fourth)] == [True, False, True], (
        "the first is in use"
    )
    assert list(ArtifactCache(tmp_path / "reader" / "copies", 0).older(3600, dry_run=False)) == []


def test_a_store_that_cannot_be_reached_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files_module, "WAITS", (0.01,))
    nobody = {"endpoint_url": "http://127.0.0.1:9", "key": "k", "secret": "s3cret-of-nobody"}
    quick = {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 1}}}
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9") as raised:
        Store("s3://bucket/store", tmp_path, nobody | quick).has(REF)
    assert raised.value.retryable
    assert "s3cret" not in str(raised.value)
