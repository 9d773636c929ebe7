"""The artifact store: finished results of stages, addressed by key, on any fsspec URL.

    URL/STAGE/KEY/manifest.json         written last, atomically; without it there is no artifact
    URL/STAGE/KEY/ATTEMPT/...           the files that the manifest names
    URL/STAGE/KEY/progress/...          parts of a build, for another machine to go on from; gone at its end
    URL/STAGE/KEY/lease/N.json          who builds it (remote stores)
    URL/runs/NAME/ID.json               what a run needs; `selftrain gc` keeps that

Builds happen in a local folder of their own that survives a kill, so that a stage goes on where it was. One process of
a machine builds a key; others wait for it. The lock is the kernel's (flock): it is gone when its holder is. Among machines
that share a remote store, a lease does the same (see `lease.py`).
"""

import fcntl
import json
import math
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from selftrain.errors import CorruptArtifact, StoreError, UsageError
from selftrain.stage import ArtifactRef, Outcome
from selftrain.store import checkpoints, weights
from selftrain.store.artifact_cache import Copies
from selftrain.store.files import Files, leads_out, replace_file, s3_tag, sha256_file, tag
from selftrain.store.lease import held

MANIFEST = "manifest.json"
LEASE = "lease"
RUNS = "runs"
REGISTRY = "registry"
"""Folder of the champions; see `selftrain.champion.registry`."""
"""Folder of the runs' records; not a stage's."""
CACHE_GIB = 50.0


class Store:
    """Artifacts under `url`.

    local      holds builds in progress, locks and, for a remote store, copies of what was read
    options    fsspec's storage options, credentials for instance; nothing of them is stored or printed
    cache_gib  most that the copies may take
    """

    def __init__(
        self,
        url: str,
        local: Path | None = None,
        options: Mapping[str, Any] | None = None,
        cache_gib: float = CACHE_GIB,
    ) -> None:
        self._arguments = (url, local, options, cache_gib)
        self.url = url
        self.has_options = bool(options)
        self.files = Files(url, options)
        self.root, self.is_local = self.files.root, self.files.is_local
        self.local = local or (Path(self.root) / ".local" if self.is_local else cache_folder() / "store")
        self.copies = Copies(self.local / "copies", int(cache_gib * (1 << 30)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process, maybe on another machine, opens it anew."""
        return Store, self._arguments

    # Reading

    def manifest(self, ref: ArtifactRef) -> dict[str, Any] | None:
        """The artifact's manifest, or None where there is no (readable) one."""
        try:
            manifest = json.loads(self.files.read(self._join(ref, MANIFEST)))
        except FileNotFoundError:
            return None
        except ValueError:
            return None  # torn or overwritten: not an artifact; the next build replaces it
        if not isinstance(manifest, dict) or manifest.get("key") != ref.key:
            return None
        names = (manifest.get("attempt", ""), *manifest.get("files", ()))
        return None if any(map(leads_out, names)) else manifest

    def has(self, ref: ArtifactRef) -> bool:
        """Whether the artifact is there and all its files are what the manifest says.

        Local files are read for it. Of a remote store's files size and tag (S3's ETag) are compared; those are read that
        have another tag or none.
        """
        manifest = self.manifest(ref)
        if manifest is None:
            return False
        try:
            self._verify(ref, manifest)
        except CorruptArtifact:
            return False
        return True

    def path(self, ref: ArtifactRef) -> Path:
        """A local folder with the artifact's files, verified; a copy stays while this process lives.

        Raises CorruptArtifact where they are not what was stored: then there is no such artifact any more.
        """
        manifest = self.manifest(ref)
        if manifest is None:
            raise CorruptArtifact(f"{ref}: no manifest in {self.url}; run again to rebuild it", str(ref))
        if self.is_local:
            self._verify(ref, manifest)
            return Path(self._join(ref, manifest["attempt"]))
        try:
            return self._copy(ref, manifest)
        except CorruptArtifact:
            with suppress(StoreError):  # who may only read leaves it to others
                if (self.manifest(ref) or {}).get("attempt") == manifest["attempt"]:
                    self.files.delete(self._join(ref, MANIFEST))
            raise

    def place(self, ref: ArtifactRef) -> Path:
        """As `path`, but files on this machine are not read to be checked: for who only looks."""
        manifest = self.manifest(ref) if self.is_local else None
        return self.path(ref) if manifest is None else Path(self._join(ref, manifest["attempt"]))

    def _copy(self, ref: ArtifactRef, manifest: dict[str, Any]) -> Path:
        """The files of a remote artifact in the local cache, each checked and where needed fetched."""
        copy = self.copies.use(ref.stage, ref.key, manifest["attempt"])
        with self.copies.filling(copy):
            missing = {
                name: entry
                for name, entry in manifest["files"].items()
                if not ((copy / name).is_file() and sha256_file(copy / name) == entry["sha256"])
            }
            if missing:
                self.copies.make_room(sum(entry["size"] for entry in missing.values()))
            for name, entry in missing.items():
                self._fetch(ref, manifest["attempt"], name, entry["sha256"], copy / name)
        return copy

    def _fetch(self, ref: ArtifactRef, attempt: str, name: str, sha256: str, target: Path) -> None:
        for _ in range(2):  # the first may have been damaged on its way
            try:
                self.files.download(self._join(ref, attempt, name), target)
            except FileNotFoundError:
                raise CorruptArtifact(
                    f"{ref}: {name} is missing; run again to rebuild it", str(ref)
                ) from None
            except StoreError as error:
                # A server that checks what is on its disk cannot hand out a damaged file, but all others.
                if error.code != "InternalError" or self.manifest(ref) is None:
                    raise
                raise CorruptArtifact(
                    f"{ref}: {name} cannot be read, though its manifest can ({error}); run again to rebuild it",
                    str(ref),
                ) from None
            except OSError as error:
                raise StoreError(f"cannot write {target}: {error}; free some space and run again") from error
            if sha256_file(target) == sha256:
                return
            target.unlink()
        raise CorruptArtifact(f"{ref}: {name} is not what was stored; run again to rebuild it", str(ref))

    def manifests(self, stage: str) -> Iterator[dict[str, Any]]:
        """The manifests of all artifacts of `stage`."""
        for key in self.files.children(f"{self.root}/{stage}"):
            manifest = self.manifest(ArtifactRef(stage, key))
            if manifest is not None:
                yield manifest

    def _verify(self, ref: ArtifactRef, manifest: dict[str, Any]) -> None:
        there = {} if self.is_local else self.files.listing(self._join(ref, manifest["attempt"]))
        for name, entry in manifest["files"].items():
            if found := there.get(name):
                if found["size"] != entry["size"]:
                    raise CorruptArtifact(
                        f"{ref}: {name} has {found['size']} bytes, its manifest says {entry['size']}; run again to rebuild it",
                        str(ref),
                    )
                if entry.get("tag") and tag(found) == entry["tag"]:
                    continue
            try:
                sha256 = self.files.sha256(self._join(ref, manifest["attempt"], name))
            except FileNotFoundError:
                raise CorruptArtifact(
                    f"{ref}: {name} is missing; run again to rebuild it", str(ref)
                ) from None
            if sha256 != entry["sha256"]:
                raise CorruptArtifact(
                    f"{ref}: {name} has sha256 {sha256[:12]}..., its manifest says {entry['sha256'][:12]}...; run again to rebuild it",
                    str(ref),
                )

    # Building

    def build(self, ref: ArtifactRef, record: dict[str, Any], make: Callable[[Path], Outcome]) -> bool:
        """Make the artifact unless it is there; False where it was. `record` goes into the manifest.

        `make` writes into the folder it is given. If another process builds `ref`, waits for it and takes its result.
        Raises what `make` raises (its folder stays, for the next try) and StoreError.
        """
        with self._lock(ref):
            if self.has(ref):
                return False
            with self._lease(ref):
                if not self.is_local and self.has(ref):  # built elsewhere, while this process waited
                    return False
                self._build(ref, record, make)
        return True

    def _build(self, ref: ArtifactRef, record: dict[str, Any], make: Callable[[Path], Outcome]) -> None:
        folder = self.local / "work" / ref.stage / ref.key
        try:
            folder.mkdir(parents=True, exist_ok=True)
            started, clock = time.time(), time.monotonic()  # the one may be changed meanwhile
            outcome = make(folder)
            seconds = time.monotonic() - clock
            self._commit(ref, record | {"seconds": seconds, "started": started}, outcome, folder)
        except OSError as error:
            raise StoreError(
                f"cannot store {ref} in {self.url}: {error}; nothing finished is lost"
            ) from error

    def _commit(self, ref: ArtifactRef, record: dict[str, Any], outcome: Outcome, folder: Path) -> None:
        """Bring `folder` into the store under a name of its own, then put the manifest that names it.

        Whoever builds the same has another name, so that no two builders' files mix; the last manifest counts. What a stage
        needs to go on is dropped last: it is still there if this fails, on a full disk for instance.

        Raises UsageError where weights or figures hold NaN or infinities: such a thing is never stored.
        """
        attempt = uuid.uuid4().hex[:12]
        names = {
            path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
        }
        kept = {name: path for name, path in names.items() if not name.startswith(f"{PROGRESS}/")}
        models = {name: weights.read(path) for name, path in kept.items() if path.suffix == ".safetensors"}
        weights.check(models, str(ref))
        if wrong := list(_not_finite(outcome.metrics, "figures")):
            raise UsageError(
                f"{ref}: {', '.join(wrong[:3])}: expected finite numbers, so that nothing is stored; look at what the stage "
                "was given"
            )
        files: dict[str, dict[str, Any]] = {
            name: {
                "size": path.stat().st_size,
                "sha256": models[name].sha256 if name in models else sha256_file(path),
            }
            for name, path in kept.items()
        }
        if not self.is_local:
            for name, found in self._upload(ref, attempt, folder, files).items():
                files[name]["tag"] = found
        manifest = record | {
            "stage": ref.stage,
            "key": ref.key,
            "attempt": attempt,
            "files": files,
            "records_digest": outcome.records_digest,
            "metrics": outcome.metrics,
        }
        text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False).encode()
        if self.is_local:
            target = self._join(ref, attempt)
            ready = folder / PROGRESS / MANIFEST  # written before anything moves: moving takes no space
            replace_file(ready, text)
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder, target)
            Path(target, PROGRESS, MANIFEST).replace(self._join(ref, MANIFEST))
            shutil.rmtree(Path(target, PROGRESS), ignore_errors=True)
            self._drop_attempts_but(ref, attempt)
        else:
            self.files.write(self._join(ref, MANIFEST), text)
            with suppress(StoreError):  # what stays, `selftrain gc` finds
                self.files.delete_folder(self._join(ref, PROGRESS))
            self._keep_copy(ref, attempt, folder)

    def _upload(
        self, ref: ArtifactRef, attempt: str, folder: Path, files: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, str]:
        """Upload and check `files`; the tags of those that the store gives one.

        A tag that is the md5 of what was sent proves it; where it is anything else (encrypted, not S3) the file is read back.
        """
        for name in files:
            self.files.upload(folder / name, self._join(ref, attempt, name))
        there = self.files.listing(self._join(ref, attempt))
        tags = {name: tag(there[name]) for name in files if name in there}
        for name, entry in files.items():
            size = there.get(name, {}).get("size")
            proven = size == entry["size"] and tags[name] == s3_tag(folder / name)
            if proven or (
                size == entry["size"] and self.files.sha256(self._join(ref, attempt, name)) == entry["sha256"]
            ):
                continue
            raise StoreError(
                f"{ref}: {name} arrived in {self.url} with {size} bytes and not as it was sent, {entry['size']} bytes; nothing "
                "finished is lost, run again to send it again"
            )
        return {name: found for name, found in tags.items() if found}

    def _keep_copy(self, ref: ArtifactRef, attempt: str, folder: Path) -> None:
        """What was uploaded need not be fetched: the build's folder becomes the local copy."""
        shutil.rmtree(folder / PROGRESS, ignore_errors=True)
        copy = self.copies.use(ref.stage, ref.key, attempt)
        shutil.move(folder, copy)
        self.copies.make_room(0)

    def _drop_attempts_but(self, ref: ArtifactRef, attempt: str) -> None:
        for path in Path(self._join(ref)).iterdir():
            if path.is_dir() and path.name != attempt:
                shutil.rmtree(path, ignore_errors=True)

    # Progress

    def sharing_checkpoints(self, ref: ArtifactRef, folder: Path) -> AbstractContextManager[None]:
        """While the block builds `ref` in `folder`, keep its checkpoints in a remote store; see `checkpoints.shared`."""
        if self.is_local:
            return nullcontext()
        return checkpoints.shared(self.files, self._join(ref, PROGRESS), folder / PROGRESS)

    def put_progress(self, ref: ArtifactRef, name: str, path: Path) -> None:
        """Keep the finished part `path` of a build of `ref` in the store, under `name` (may hold slashes)."""
        where = self._join(ref, PROGRESS, sha256_file(path), name)
        if self.is_local:
            replace_file(Path(where), path.read_bytes())
        else:
            self.files.upload(path, where)

    def get_progress(self, ref: ArtifactRef, folder: Path) -> list[str]:
        """Bring into `folder` the parts that `put_progress` kept and that it lacks; the names of all that are there now.

        A part that is not what was kept is left out, as if it had never been.
        """
        names = set()
        for found in self.files.listing(self._join(ref, PROGRESS)):
            sha256, _, name = found.partition("/")
            if not name or leads_out(name):
                continue
            target = folder / name
            if not target.is_file():
                try:
                    self.files.download(self._join(ref, PROGRESS, found), target)
                except FileNotFoundError:  # committed by another builder meanwhile
                    continue
                if sha256_file(target) != sha256:
                    target.unlink()
                    continue
            names.add(name)
        return sorted(names)

    # Runs

    def record_run(self, name: str, id: str, record: Mapping[str, Any]) -> None:
        """Keep what a run needs; `selftrain gc` goes by it."""
        self.files.write(f"{self.root}/{RUNS}/{name}/{id}.json", json.dumps(record, indent=1).encode())

    @contextmanager
    def _lock(self, ref: ArtifactRef) -> Iterator[None]:
        path = self.local / "locks" / f"{ref.stage}-{ref.key}"
        with self.writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Tells a failure to write what goes with the store on this machine as a StoreError."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"store {self.url}: {error}; expected a folder that can be written, choose one with --set store=..."
            ) from error

    def _lease(self, ref: ArtifactRef) -> AbstractContextManager[None]:
        """Keeps other machines' builders waiting; a local store's are kept by the lock."""
        if self.is_local:
            return nullcontext()
        return held(self.files, self._join(ref, LEASE), self._machine)

    @cached_property
    def _machine(self) -> str:
        """Names the folder of our locks: who holds a lock there knows that no lease of the same name has a living holder."""
        path = self.local / "machine"
        if not path.is_file():
            replace_file(path, uuid.uuid4().hex.encode())
        return f"{socket.gethostname()}:{path.read_text()}"

    def _join(self, ref: ArtifactRef, *names: str) -> str:
        return "/".join((self.root, ref.stage, ref.key, *names))


def _not_finite(value: Any, where: str) -> Iterator[str]:
    """Places in JSON values that hold NaN or infinities, with what is there."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where} is {value}"
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, item in items:
        yield from _not_finite(item, f"{where}.{name}")


MARKS = {RUNS, "registry", "prepare", ".local"}
"""What there is one of in every store that something has been written to."""


def find_store(url: str) -> Store:
    """The store at `url`. Raises UsageError where nothing has been stored there: it is another place that was meant."""
    store = Store(url)
    if not MARKS & set(store.files.children(store.root)):
        raise UsageError(
            f"{url}: no store is there; expected the folder or URL that `selftrain run` has stored to (its setting `store`, "
            "runs/store where it is not set)"
        )
    return store


PROGRESS = "progress"
"""Folder for checkpoints and shards, inside a build's folder and beside a manifest; dropped when the artifact is committed."""


def cache_folder() -> Path:
    """Where copies that can be made again are kept (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selftrain"
