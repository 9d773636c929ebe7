"""The artifact store: finished results of stages, addressed by key, on any fsspec URL.

    URL/STAGE/KEY/manifest.json         written last, atomically; without it there is no artifact
    URL/STAGE/KEY/ATTEMPT/...           the files that the manifest names
    URL/STAGE/KEY/progress/...          finished parts of a build, which another machine can resume from; deleted at its end
    URL/STAGE/KEY/lease/N.json          who builds it (remote stores)
    URL/runs/NAME/ID.json               the artifacts of a run; `selftrain gc` keeps those

Each build writes into a local folder that survives a kill, so that the next build resumes it. On each machine one process
builds a key while the others wait: its lock is an flock, which the kernel releases when the process ends. Among machines
that share a remote store, a lease does the same (see `lease.py`).
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

from selftrain.errors import CorruptArtifact, StoreError, UsageError
from selftrain.stage import ArtifactRef, Outcome
from selftrain.store import checkpoints, weights
from selftrain.store.artifact_cache import ArtifactCache, cache_folder
from selftrain.store.files import Files, leads_out, replace_file, s3_tag, sha256_file, tag
from selftrain.store.lease import held

MANIFEST = "manifest.json"
LEASE = "lease"
PROGRESS = "progress"
"""Folder for checkpoints and shards, in a build's own folder and next to its manifest; deleted when the artifact is committed."""
RUNS = "runs"
"""Folder of the runs' records; it is no stage's."""
REGISTRY = "registry"
"""Folder of the champions; see `selftrain.champion.registry`."""
CREATED = {RUNS, REGISTRY, "prepare", ".local"}
"""One of these is in every store that something has been written to."""
CACHE_GIB = 50.0


class Store:
    """Artifacts under `url`.

    local      folder of builds in progress, of locks and, for a remote store, of the artifact cache
    options    fsspec's storage options, for example credentials; they are never stored or printed
    cache_gib  size limit of the artifact cache
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
        self.cache = ArtifactCache(self.local / "copies", int(cache_gib * (1 << 30)))

    def __reduce__(self) -> tuple[Any, ...]:
        """How to pickle a store: another process opens it again from its arguments."""
        return Store, self._arguments

    # Reading

    def manifest(self, ref: ArtifactRef) -> dict[str, Any] | None:
        """The artifact's manifest; None where there is none that can be read."""
        try:
            manifest = json.loads(self.files.read(self._join(ref, MANIFEST)))
        except (FileNotFoundError, ValueError):  # a truncated one is no artifact; the next build replaces it
            return None
        if not isinstance(manifest, dict) or manifest.get("key") != ref.key:
            return None
        names = (manifest.get("attempt", ""), *manifest.get("files", ()))
        return None if any(map(leads_out, names)) else manifest

    def has(self, ref: ArtifactRef) -> bool:
        """Whether the artifact exists and all its files are what the manifest says.

        Local files are read and hashed. Of a remote store's files size and tag (S3's ETag) are compared; only files with
        another tag, or without one, are read.
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
        """A local folder with the artifact's files, verified. A cached copy is not evicted while this process lives.

        Raises CorruptArtifact where the files are not what was stored; a remote artifact has lost its manifest then.
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
            with suppress(StoreError):  # without permission to delete, another process has to
                if (self.manifest(ref) or {}).get("attempt") == manifest["attempt"]:
                    self.files.delete(self._join(ref, MANIFEST))
            raise

    def place(self, ref: ArtifactRef) -> Path:
        """As `path`, but without verifying files of a local store: for commands that only read."""
        manifest = self.manifest(ref) if self.is_local else None
        return self.path(ref) if manifest is None else Path(self._join(ref, manifest["attempt"]))

    def _copy(self, ref: ArtifactRef, manifest: dict[str, Any]) -> Path:
        """The files of a remote artifact in the local cache; each is verified, and fetched where it is missing or damaged."""
        copy = self.cache.use(ref.stage, ref.key, manifest["attempt"])
        with self.cache.filling(copy):
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
        for _ in range(2):  # the first download may have been damaged on its way
            try:
                self.files.download(self._join(ref, attempt, name), target)
            except FileNotFoundError:
                raise CorruptArtifact(
                    f"{ref}: {name} is missing; run again to rebuild it", str(ref)
                ) from None
            except StoreError as error:
                # A server that verifies its disk fails on a damaged file, though it serves all others.
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
        """Make the artifact unless it exists; False where it did. `record` goes into the manifest.

        `make` writes into the folder that it is given. If another process builds `ref`, wait for it and use its result.
        Raises what `make` raises (its folder stays, so that the next build resumes it) and StoreError.
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
            started, clock = time.time(), time.monotonic()  # the wall clock may be set meanwhile
            outcome = make(folder)
            seconds = time.monotonic() - clock
            self._commit(ref, record | {"seconds": seconds, "started": started}, outcome, folder)
        except OSError as error:
            raise StoreError(
                f"cannot store {ref} in {self.url}: {error}; nothing finished is lost"
            ) from error

    def _commit(self, ref: ArtifactRef, record: dict[str, Any], outcome: Outcome, folder: Path) -> None:
        """Move or upload `folder` into the store as a new attempt, then write the manifest that names it.

        Each build has an attempt of its own, so that the files of two builders never mix; the last manifest counts. The
        build's progress is deleted last: if the commit fails, for example on a full disk, the next build can resume.

        Raises UsageError where weights or figures hold NaN or infinities: they are never stored.
        """
        attempt = uuid.uuid4().hex[:12]
        names = {
            path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
        }
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
            ready = folder / PROGRESS / MANIFEST  # written before the move, which needs no space on the disk
            replace_file(ready, text)
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder, target)
            Path(target, PROGRESS, MANIFEST).replace(self._join(ref, MANIFEST))
            shutil.rmtree(Path(target, PROGRESS), ignore_errors=True)
            self._drop_attempts_but(ref, attempt)
        else:
            self.files.write(self._join(ref, MANIFEST), text)
            with suppress(StoreError):  # `selftrain gc` removes what stays
                self.files.delete_folder(self._join(ref, PROGRESS))
            self._keep_copy(ref, attempt, folder)

    def _upload(
        self, ref: ArtifactRef, attempt: str, folder: Path, files: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, str]:
        """Upload and verify `files`; the tags of those that the store gives one.

        A tag that is the md5 of what was sent is proof; a file with any other tag (encrypted, not S3) is read back.
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
        """Move the build's folder into the artifact cache, so that nothing has to be fetched again."""
        shutil.rmtree(folder / PROGRESS, ignore_errors=True)
        copy = self.cache.use(ref.stage, ref.key, attempt)
        shutil.move(folder, copy)
        self.cache.make_room(0)

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
        """Store the finished part `path` of a build of `ref` under `name`, which may contain slashes."""
        where = self._join(ref, PROGRESS, sha256_file(path), name)
        if self.is_local:
            replace_file(Path(where), path.read_bytes())
        else:
            self.files.upload(path, where)

    def get_progress(self, ref: ArtifactRef, folder: Path) -> list[str]:
        """Fetch into `folder` the parts that `put_progress` stored and that it lacks; the names of all stored parts in it.

        A part that is not what was stored is left out.
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
        """Store a run's record, which names its artifacts; `selftrain gc` keeps these."""
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
        """Turn a failure to write the store's local files into a StoreError."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"store {self.url}: {error}; expected a folder that can be written, choose one with --set store=..."
            ) from error

    def _lease(self, ref: ArtifactRef) -> AbstractContextManager[None]:
        """Hold the key's lease, which keeps other machines' builders waiting; a local store needs none beside its lock."""
        if self.is_local:
            return nullcontext()
        return held(self.files, self._join(ref, LEASE), self._machine)

    @cached_property
    def _machine(self) -> str:
        """Identifies the folder of our locks. Whoever holds a key's lock there knows that a lease with this name is stale."""
        path = self.local / "machine"
        if not path.is_file():
            replace_file(path, uuid.uuid4().hex.encode())
        return f"{socket.gethostname()}:{path.read_text()}"

    def _join(self, ref: ArtifactRef, *names: str) -> str:
        return "/".join((self.root, ref.stage, ref.key, *names))


def find_store(url: str) -> Store:
    """The store at `url`. Raises UsageError where nothing has been stored there: `url` must be wrong then."""
    store = Store(url)
    if not CREATED & set(store.files.children(store.root)):
        raise UsageError(
            f"{url}: no store is there; expected the folder or URL that `selftrain run` has stored to (its setting `store`, "
            "by default runs/store)"
        )
    return store
