"""The artifact store: finished results of stages, addressed by key, on any fsspec URL.

    URL/STAGE/KEY/manifest.json         written last, atomically; without it there is no artifact
    URL/STAGE/KEY/ATTEMPT/...           the files that the manifest names
    URL/STAGE/KEY/progress/...          finished parts and checkpoints of a build in progress, from which another machine can
                                        resume; deleted once the artifact is committed
    URL/STAGE/KEY/lease/N.json          the machine that is building the artifact (remote stores only)
    URL/runs/NAME/ID.json               a run's record, which lists its artifacts; `selftrain gc` keeps these

A build writes into a local folder, which stays if the process is killed, so that the next build can resume. On each machine
one process at a time builds a key. It holds an flock, which the kernel releases when the process ends; other processes wait.
Among machines that share a remote store, a lease has the same purpose (`lease.py`).
"""

import fcntl
import json
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from selftrain.errors import CorruptArtifact, StoreError, StoreRefused, UsageError
from selftrain.stage import ArtifactRef, Outcome
from selftrain.store import checkpoints, weights
from selftrain.store.artifact_cache import ArtifactCache, cache_folder
from selftrain.store.files import Files, leads_out, replace_file, sha256_file, tag
from selftrain.store.lease import held

MANIFEST = "manifest.json"
LEASE = "lease"
PROGRESS = "progress"
"""Name of the folder for checkpoints and shards, both in a build's local folder and in the key's folder in the store."""
RUNS = "runs"
"""Folder of the runs' records."""
REGISTRY = "registry"
"""Folder of the registries of champions (`selftrain.champion.registry`)."""
CREATED = {RUNS, REGISTRY, "prepare", ".local"}
"""Names at the root of a store; a store to which anything was written has at least one of them."""


class Store:
    """Artifacts under `url`.

    local      local folder for builds in progress, for locks and, with a remote store, for the artifact cache
    options    fsspec's storage options, for example credentials; they are never stored or printed
    cache_gib  size limit of the artifact cache, GiB
    """

    def __init__(
        self,
        url: str,
        local: Path | None = None,
        options: Mapping[str, Any] | None = None,
        cache_gib: float = 50.0,
    ) -> None:
        self._arguments = (url, local, options, cache_gib)
        self.url = url
        self.has_options = bool(options)
        self.files = Files(url, options)
        self.root, self.is_local = self.files.root, self.files.is_local
        self.local = local or (Path(self.root) / ".local" if self.is_local else cache_folder() / "store")
        self.cache = ArtifactCache(self.local / "copies", int(cache_gib * (1 << 30)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the arguments: the process that unpickles opens the store again."""
        return Store, self._arguments

    # Reading

    def manifest(self, ref: ArtifactRef) -> dict[str, Any] | None:
        """The artifact's manifest; None where it does not exist or is damaged: then the next build replaces it."""
        try:
            manifest = json.loads(self.files.read(self._join(ref, MANIFEST)))
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(manifest, dict) or manifest.get("key") != ref.key:
            return None
        names = (manifest.get("attempt", ""), *manifest.get("files", ()))
        return None if any(map(leads_out, names)) else manifest

    def has(self, ref: ArtifactRef) -> bool:
        """Whether the artifact exists and all its files match the manifest.

        Files of a local store are hashed. For files of a remote store, size and tag (S3's ETag) are compared; a file is
        downloaded and hashed only where its tag differs or is missing.
        """
        manifest = self.manifest(ref)
        if manifest is None:
            return False
        with suppress(CorruptArtifact):
            self._verify(ref, manifest)
            return True
        return False

    def path(self, ref: ArtifactRef) -> Path:
        """A local folder with the artifact's files, verified. A cached copy is not evicted while this store object exists.

        Raises CorruptArtifact where the files differ from the manifest, or where there is no manifest. Before it raises for
        a damaged remote artifact, it deletes the manifest, so that the next run rebuilds the artifact.
        """
        manifest = self.manifest(ref)
        if manifest is None:
            if self.is_local and not Path(self.root).is_dir():
                raise StoreRefused(
                    f"store {self.url}: no such folder on this machine; a run's folder that was copied here needs its store too: copy "
                    "that, and write its place into `store` of the copied run.json"
                )
            raise CorruptArtifact(str(ref), f"no manifest in {self.url}")
        if self.is_local:
            self._verify(ref, manifest)
            return Path(self._join(ref, manifest["attempt"]))
        try:
            return self._copy(ref, manifest)
        except CorruptArtifact:
            with suppress(StoreError):  # this process may lack the permission to delete
                if (self.manifest(ref) or {}).get("attempt") == manifest["attempt"]:
                    self.files.delete(self._join(ref, MANIFEST))
            raise

    def place(self, ref: ArtifactRef) -> Path:
        """Like `path`, but files of a local store are not verified: for commands that only read."""
        manifest = self.manifest(ref) if self.is_local else None
        return self.path(ref) if manifest is None else Path(self._join(ref, manifest["attempt"]))

    def _copy(self, ref: ArtifactRef, manifest: dict[str, Any]) -> Path:
        """The folder of a remote artifact in the local cache. Files that are missing or damaged there are downloaded."""
        with self.writing():
            copy = self.cache.use(ref.stage, ref.key, manifest["attempt"])
        with self.writing(), self.cache.filling(copy):
            missing = {
                name: entry
                for name, entry in manifest["files"].items()
                if not ((copy / name).is_file() and sha256_file(copy / name) == entry["sha256"])
            }
            if missing:
                self.cache.make_room(sum(entry["size"] for entry in missing.values()))
            for name, entry in missing.items():
                self._fetch(ref, manifest["attempt"], name, entry["sha256"], copy / name)
        return copy

    def _fetch(self, ref: ArtifactRef, attempt: str, name: str, sha256: str, target: Path) -> None:
        """Download one file to `target` and check its hash. Raises CorruptArtifact where the stored file is damaged."""
        for _ in range(2):  # the second attempt is for a file that was damaged in transit
            try:
                self.files.download(self._join(ref, attempt, name), target)
            except FileNotFoundError:
                raise CorruptArtifact(str(ref), f"{name} is missing") from None
            except StoreError as error:
                # A server that verifies its disk reports an internal error for a damaged file, and serves all others.
                if error.code != "InternalError" or self.manifest(ref) is None:
                    raise
                said = f"{name} cannot be read, though its manifest can ({error})"
                raise CorruptArtifact(str(ref), said) from None
            if sha256_file(target) == sha256:
                return
            target.unlink()
        raise CorruptArtifact(str(ref), f"{name} is not what was stored")

    def manifests(self, stage: str) -> Iterator[dict[str, Any]]:
        """The manifests of all artifacts of `stage`."""
        for key in self.files.children(f"{self.root}/{stage}"):
            manifest = self.manifest(ArtifactRef(stage, key))
            if manifest is not None:
                yield manifest

    def _verify(self, ref: ArtifactRef, manifest: dict[str, Any]) -> None:
        """Raise CorruptArtifact where a file is missing or differs from the manifest."""
        there = {} if self.is_local else self.files.listing(self._join(ref, manifest["attempt"]))
        for name, entry in manifest["files"].items():
            if found := there.get(name):
                if found["size"] != entry["size"]:
                    said = f"{name} has {found['size']} bytes, its manifest says {entry['size']}"
                    raise CorruptArtifact(str(ref), said)
                if entry.get("tag") and tag(found) == entry["tag"]:
                    continue
            try:
                sha256 = self.files.sha256(self._join(ref, manifest["attempt"], name))
            except FileNotFoundError:
                raise CorruptArtifact(str(ref), f"{name} is missing") from None
            if sha256 != entry["sha256"]:
                said = f"{name} has sha256 {sha256[:12]}..., its manifest says {entry['sha256'][:12]}..."
                raise CorruptArtifact(str(ref), said)

    # Building

    def work(self, ref: ArtifactRef) -> Path:
        """The folder on this machine in which the artifact is made."""
        return self.local / "work" / ref.stage / ref.key

    def build(self, ref: ArtifactRef, record: dict[str, Any], make: Callable[[Path], Outcome]) -> bool:
        """Build the artifact unless it exists. Returns whether this call built it.

        record  further fields of the manifest
        make    writes the artifact's files into the folder that it is given

        If another process is building `ref`, wait for it and use its result. Raises StoreError, and what `make` raises; the
        folder then stays, so that the next build can resume.
        """
        with self.lock(ref):
            if self.has(ref):
                return False
            with self._lease(ref):
                if not self.is_local and self.has(ref):  # another machine built it while this process waited
                    return False
                self._build(ref, record, make)
        return True

    def _build(self, ref: ArtifactRef, record: dict[str, Any], make: Callable[[Path], Outcome]) -> None:
        folder = self.work(ref)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            started, clock = time.time(), time.monotonic()
            outcome = make(folder)
            seconds = time.monotonic() - clock  # not affected by changes of the wall clock
            self._commit(ref, record | {"seconds": seconds, "started": started}, outcome, folder)
        except OSError as error:
            raise StoreError(
                f"cannot store {ref} in {self.url}: {error}; nothing finished is lost"
            ) from error

    def _commit(self, ref: ArtifactRef, record: dict[str, Any], outcome: Outcome, folder: Path) -> None:
        """Move or upload `folder` into the store as a new attempt, then write the manifest that names the attempt.

        Every build has its own attempt folder, so that the files of two builders never mix; the last manifest that was
        written counts. The build's progress is deleted last: if the commit fails, for example on a full disk, the next build
        can resume.

        Raises UsageError where weights or metrics hold NaN or infinities: they are never stored.
        """
        attempt = uuid.uuid4().hex[:12]
        built = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        names = {path.relative_to(folder).as_posix(): path for path in built}
        kept = {name: path for name, path in names.items() if not name.startswith(f"{PROGRESS}/")}
        models = {name: weights.read(path) for name, path in kept.items() if path.suffix == ".safetensors"}
        weights.check(models, str(ref))
        weights.check_figures(outcome.metrics, str(ref))
        files: dict[str, dict[str, Any]] = {
            name: {
                "size": path.stat().st_size,
                "sha256": models[name].sha256 if name in models else sha256_file(path),
            }
            for name, path in kept.items()
        }
        if not self.is_local:
            for name, found in self.files.upload_all(folder, files, self._join(ref, attempt)).items():
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
            ready = folder / PROGRESS / MANIFEST  # written before the move, which itself needs no disk space
            replace_file(ready, text)
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder, target)
            Path(target, PROGRESS, MANIFEST).replace(self._join(ref, MANIFEST))
            shutil.rmtree(Path(target, PROGRESS), ignore_errors=True)
            self._drop_attempts_but(ref, attempt)
        else:
            self.files.write(self._join(ref, MANIFEST), text)
            with suppress(StoreError):  # `selftrain gc` removes it later
                self.files.delete_folder(self._join(ref, PROGRESS))
            self._keep_copy(ref, attempt, folder)

    def _keep_copy(self, ref: ArtifactRef, attempt: str, folder: Path) -> None:
        """Move the build's folder into the artifact cache, so that this machine need not download the artifact."""
        shutil.rmtree(folder / PROGRESS, ignore_errors=True)
        copy = self.cache.use(ref.stage, ref.key, attempt)
        shutil.move(folder, copy)
        self.cache.make_room(0)

    def _drop_attempts_but(self, ref: ArtifactRef, attempt: str) -> None:
        """Delete all other folders of the key from a local store: older attempts and progress."""
        for path in Path(self._join(ref)).iterdir():
            if path.is_dir() and path.name != attempt:
                shutil.rmtree(path, ignore_errors=True)

    # Progress

    def sharing_checkpoints(self, ref: ArtifactRef, folder: Path) -> AbstractContextManager[None]:
        """While the block builds `ref` in `folder`, mirror its checkpoints to a remote store (`checkpoints.shared`)."""
        if self.is_local:
            return nullcontext()
        return checkpoints.shared(self.files, self._join(ref, PROGRESS), folder / PROGRESS)

    def put_progress(self, ref: ArtifactRef, name: str, path: Path) -> None:
        """Store the file `path`, a finished part of a build of `ref`, under `name`, which may contain slashes."""
        where = self._join(ref, PROGRESS, sha256_file(path), name)
        if self.is_local:
            replace_file(Path(where), path.read_bytes())
        else:
            self.files.upload(path, where)

    def get_progress(self, ref: ArtifactRef, folder: Path) -> list[str]:
        """Download into `folder` the parts that `put_progress` stored and `folder` lacks; returns the names of all stored parts.

        A part whose content does not match its stored hash is left out.
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
                except FileNotFoundError:  # another builder has committed the artifact and deleted the part
                    continue
                if sha256_file(target) != sha256:
                    target.unlink()
                    continue
            names.add(name)
        return sorted(names)

    # Runs

    def record_run(self, name: str, id: str, record: Mapping[str, Any]) -> None:
        """Store a run's record. `selftrain gc` keeps the artifacts that it names."""
        self.files.write(f"{self.root}/{RUNS}/{name}/{id}.json", json.dumps(record, indent=1).encode())

    @contextmanager
    def lock(self, ref: ArtifactRef, wait: bool = True) -> Iterator[bool]:
        """Hold this machine's lock of the key for the block; yields whether it is held.

        If another process holds the lock, this waits for it, or without `wait` yields False.
        """
        path = self.local / "locks" / f"{ref.stage}-{ref.key}"
        with self.writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        with file:
            free = False
            with self.writing(), suppress(BlockingIOError):  # some network file systems have no locks
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                free = True
            yield free

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn a failure to write the store's local files into a StoreError."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"store {self.url}: {error}; expected a folder that can be written, choose one with "
                + ("--set store=..." if self.is_local else "the environment variable XDG_CACHE_HOME")
            ) from error

    def _lease(self, ref: ArtifactRef) -> AbstractContextManager[None]:
        """Hold the key's lease for the block; builders on other machines wait for it. A local store needs only `lock`."""
        if self.is_local:
            return nullcontext()
        return held(self.files, self._join(ref, LEASE), self._machine)

    @cached_property
    def _machine(self) -> str:
        """Identifies the folder of this machine's locks in leases (`lease.held`)."""
        path = self.local / "machine"
        with self.writing():
            if not path.is_file():
                replace_file(path, uuid.uuid4().hex.encode())
            return f"{socket.gethostname()}:{path.read_text()}"

    def _join(self, ref: ArtifactRef, *names: str) -> str:
        return "/".join((self.root, ref.stage, ref.key, *names))


def find_store(url: str) -> Store:
    """The store at `url`. Raises UsageError where nothing has been stored there, since `url` is then probably wrong."""
    store = Store(url)
    if not CREATED & set(store.files.children(store.root)):
        raise UsageError(
            f"{url}: no store is there; expected the folder or URL that `selftrain run` has stored to (its setting `store`, "
            "by default runs/store)"
        )
    return store
