"""The artifact store: finished results of stages, addressed by key, on any fsspec URL.

    URL/STAGE/KEY/manifest.json         written last, atomically; without it there is no artifact
    URL/STAGE/KEY/ATTEMPT/...           the files that the manifest names

Builds happen in a local folder of their own that survives a kill, so that a stage goes on where it was. One process of
a machine builds a key; others wait for it. The lock is the kernel's (flock): it is gone when its holder is.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from selftrain.errors import CorruptArtifact, StoreError
from selftrain.stage import ArtifactRef, Outcome

MANIFEST = "manifest.json"


class Store:
    """Artifacts under `url`; `local` holds builds in progress, locks and, for a remote store, copies of what was read."""

    def __init__(self, url: str, local: Path | None = None) -> None:
        try:
            self.fs, self.root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"store {url!r}: {error}; expected a folder or an fsspec URL such as s3://bucket/path"
            ) from error
        self.url = url
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.local = local or (Path(self.root) / ".local" if self.is_local else cache_folder() / "store")

    # Reading

    def manifest(self, ref: ArtifactRef) -> dict[str, Any] | None:
        """The artifact's manifest, or None where there is no (readable) one."""
        try:
            with self.fs.open(self._join(ref, MANIFEST), "rb") as file:
                manifest = json.load(file)
        except FileNotFoundError:
            return None
        except (ValueError, UnicodeDecodeError):
            return None  # torn or overwritten: not an artifact; the next build replaces it
        except OSError as error:
            raise StoreError(f"cannot read {ref} in {self.url}: {error}") from error
        return manifest if isinstance(manifest, dict) and manifest.get("key") == ref.key else None

    def has(self, ref: ArtifactRef) -> bool:
        """Whether the artifact is there and all its files are what the manifest says (sha256)."""
        manifest = self.manifest(ref)
        if manifest is None:
            return False
        try:
            self._verify(ref, manifest)
        except CorruptArtifact:
            return False
        return True

    def path(self, ref: ArtifactRef) -> Path:
        """A local folder with the artifact's files, verified. Raises CorruptArtifact where they are not what was stored."""
        manifest = self.manifest(ref)
        if manifest is None:
            raise CorruptArtifact(f"{ref}: no manifest in {self.url}; run again to rebuild it")
        if self.is_local:
            self._verify(ref, manifest)
            return Path(self._join(ref, manifest["attempt"]))
        copy = self.local / "copies" / ref.stage / ref.key / manifest["attempt"]
        for name, entry in manifest["files"].items():
            target = copy / name
            if not (target.is_file() and sha256_file(target) == entry["sha256"]):
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self.fs.get_file(self._join(ref, manifest["attempt"], name), str(target))
                except FileNotFoundError as error:
                    raise CorruptArtifact(f"{ref}: {name} is missing; run again to rebuild it") from error
                if sha256_file(target) != entry["sha256"]:
                    target.unlink()
                    raise CorruptArtifact(f"{ref}: {name} is not what was stored; run again to rebuild it")
        return copy

    def manifests(self, stage: str) -> Iterator[dict[str, Any]]:
        """The manifests of all artifacts of `stage`."""
        try:
            keys = self.fs.ls(f"{self.root}/{stage}", detail=False)
        except FileNotFoundError:
            return
        for key in sorted(keys):
            manifest = self.manifest(ArtifactRef(stage, PurePosixPath(key).name))
            if manifest is not None:
                yield manifest

    def _verify(self, ref: ArtifactRef, manifest: dict[str, Any]) -> None:
        for name, entry in manifest["files"].items():
            where = self._join(ref, manifest["attempt"], name)
            try:
                with self.fs.open(where, "rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                raise CorruptArtifact(f"{ref}: {name} is missing; run again to rebuild it") from None
            except OSError as error:
                raise StoreError(f"cannot read {where}: {error}") from error
            if found != entry["sha256"]:
                raise CorruptArtifact(
                    f"{ref}: {name} has sha256 {found[:12]}..., its manifest says {entry['sha256'][:12]}...; run again to rebuild it"
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
        return True

    def _commit(self, ref: ArtifactRef, record: dict[str, Any], outcome: Outcome, folder: Path) -> None:
        """Bring `folder` into the store under a name of its own, then put the manifest that names it.

        What a stage needs to go on is dropped last: it is still there if this fails, on a full disk for instance.
        """
        attempt = uuid.uuid4().hex[:12]
        names = {
            path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
        }
        files = {
            name: {"size": path.stat().st_size, "sha256": sha256_file(path)}
            for name, path in names.items()
            if not name.startswith(f"{PROGRESS}/")
        }
        manifest = record | {
            "stage": ref.stage,
            "key": ref.key,
            "attempt": attempt,
            "files": files,
            "records_digest": outcome.records_digest,
            "metrics": outcome.metrics,
        }
        text = json.dumps(manifest, indent=1, sort_keys=True).encode()
        target = self._join(ref, attempt)
        if self.is_local:
            ready = folder / PROGRESS / MANIFEST  # written before anything moves: moving takes no space
            replace_file(ready, text)
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder, target)
            Path(target, PROGRESS, MANIFEST).replace(self._join(ref, MANIFEST))
            shutil.rmtree(Path(target, PROGRESS), ignore_errors=True)
            self._drop_attempts_but(ref, attempt)
        else:
            for name in files:
                self.fs.put_file(str(folder / name), f"{target}/{name}")
            self.fs.pipe_file(self._join(ref, MANIFEST), text)
            shutil.rmtree(folder)

    def _drop_attempts_but(self, ref: ArtifactRef, attempt: str) -> None:
        for path in Path(self._join(ref)).iterdir():
            if path.is_dir() and path.name != attempt:
                shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _lock(self, ref: ArtifactRef) -> Iterator[None]:
        path = self.local / "locks" / f"{ref.stage}-{ref.key}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        except OSError as error:
            raise StoreError(
                f"store {self.url}: {error}; expected a folder that can be written, choose one with --set store=..."
            ) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _join(self, ref: ArtifactRef, *names: str) -> str:
        return "/".join((self.root, ref.stage, ref.key, *names))


PROGRESS = "progress"
"""Folder inside a build's folder for checkpoints and shards; dropped when the artifact is committed."""


def replace_file(path: Path, content: bytes) -> None:
    """Write `path` so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def sha256_file(path: Path) -> str:
    """sha256 of a local file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where copies that can be made again are kept (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selftrain"
