"""File operations on a local or remote store, with retries of transient failures and clear messages for all others.

S3's client retries first (`CLIENT`). If it gives up with a transient failure, this module retries, with back-off (`WAITS`).
"""

import errno
import hashlib
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from selftrain.errors import StoreError, StoreRefused, UsageError
from selftrain.redact import URL_PASSWORD, known_secrets, without_secrets
from selftrain.store import addresses
from selftrain.store.addresses import S3

Result = TypeVar("Result")

PART = 16 << 20
"""Bytes of one part when a large file is uploaded or downloaded in parts."""
MOST_PARTS = 10_000
"""S3's limit on the parts of one file."""
WAITS = (1.0, 5.0)
"""Back-off: seconds before the first and the second retry, each times a random factor of 0.5 to 1.5."""
CLIENT: dict[str, Any] = {
    "config_kwargs": {
        "retries": {"mode": "standard", "total_max_attempts": 5},
        "connect_timeout": 10,
        "read_timeout": 60,
    },
    "default_block_size": PART,
}
"""Settings of S3's client; FSSPEC_S3 and the storage options override them."""
PATIENT = CLIENT | {
    "config_kwargs": CLIENT["config_kwargs"] | {"retries": {"mode": "standard", "total_max_attempts": 8}}
}
"""`CLIENT` with more retries, for callers that do not retry themselves."""

SECRET_OPTION = re.compile(r"key|secret|token|pass|credential", re.IGNORECASE)
"""Names of options whose values are secret."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""errno values that are not a remote store's: this machine's disk is full, or may not be written."""

# Transient failures: errno values, error codes of S3 servers, and libraries whose exceptions are transient except `REFUSED`.
PASSING = {errno.EBUSY, errno.EIO, errno.EAGAIN, getattr(errno, "EREMOTEIO", errno.EIO)}
PASSING_CODES = {"BadDigest", "IncompleteBody", "NoSuchUpload", "RequestTimeout", "XAmzContentSHA256Mismatch"}
CLIENT_LIBRARIES = {"aiobotocore", "aiohttp", "botocore"}
ELSE = (
    "expected a bucket or folder that exists and that one may list, read and write: check it, the endpoint (AWS_ENDPOINT_URL) "
    "and the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or `store_block`)"
)
REFUSED = ("Credential", "Invalid", "Param", "Profile", "Region", "Token")
"""Words in the class names of these libraries' exceptions that a retry cannot help against."""


class Files:
    """The files under `url`. All paths that methods take are full paths in the fsspec file system `fs`.

    Methods raise FileNotFoundError, StoreRefused where a retry cannot help, and StoreError for other failures.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        if URL_PASSWORD.search(url):
            raise UsageError(
                f"store {without_secrets(url, [])}: a URL must not hold a password, it would be in logs and records; give "
                "credentials by the environment (AWS_ACCESS_KEY_ID, ...) or by `store_block`"
            )
        addresses.check(url)
        protocol = fsspec.utils.get_protocol(url)
        options = dict(options or {})
        self.secrets = _secrets(options)
        defaults = (CLIENT | fsspec.config.conf.get(protocol, {})) if protocol in S3 else {}
        if protocol not in {"file", "local"}:
            # A new client each time: fsspec's shared client would keep credentials that the environment no longer has.
            options = {"use_listings_cache": False, "skip_instance_cache": True} | defaults | options
        try:
            self.fs, self.root = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError, TypeError) as error:
            raise UsageError(f"store {url!r}: {self._clean(error)}; {addresses.EXPECTED}") from None
        self.url = url
        self.is_s3 = protocol in S3
        self.is_local = isinstance(self.fs, LocalFileSystem)
        if self.is_s3:
            self.fs.retries = 2  # s3fs's own retries, in addition to those of its client and of `_do`

    def read(self, path: str) -> bytes:
        """The content of one file."""
        return self._do(f"read {path}", lambda: self.fs.cat_file(path))

    def sha256(self, path: str) -> str:
        """sha256 of one file, 64 hex digits; reads the file."""

        def read() -> str:
            with self.fs.open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

        return self._do(f"read {path}", read)

    def write(self, path: str, content: bytes) -> None:
        """Write one file atomically: readers see the whole new content or none of it."""
        if self.is_local:
            self._write(path, lambda: replace_file(Path(path), content))
        else:
            self._write(path, lambda: self.fs.pipe_file(path, content))

    def _write(self, path: str, act: Callable[[], None]) -> None:
        try:
            self._do(f"write {path}", act)
        except FileNotFoundError as error:  # its folder cannot be created
            raise StoreError(f"cannot write {path}: {error}") from error

    def create(self, path: str, content: bytes) -> bool:
        """Write one file unless it exists; returns whether the file now has our content. Atomic if `exact`.

        `content` must be unique to the caller: if the response to a request was lost, the content tells whose write succeeded.
        """

        def create() -> None:
            try:
                if self.is_local:
                    _create_local(Path(path), content)
                else:
                    self.fs.pipe_file(path, content, mode="create")
            except FileExistsError:
                pass
            except OSError as error:  # stores report a failed precondition in several ways
                if error.errno not in {errno.EINVAL, errno.EBUSY} or not self.fs.exists(path):
                    raise

        self._write(path, create)
        try:
            return self.read(path) == content
        except FileNotFoundError:  # another process had created the file, and has deleted it
            return False

    @cached_property
    def exact(self) -> bool:
        """Whether the store honours exclusive creation (S3's If-None-Match); tested with a probe file at the first use."""
        probe = f"{self.root}/probe/{uuid.uuid4().hex}"
        self.create(probe, b"first")
        try:
            return not self.create(probe, b"second")
        finally:
            self.delete(probe)

    def upload(self, source: Path, path: str) -> None:
        """Upload a local file; a large file is sent in parts."""
        how = {"chunksize": part_size(source.stat().st_size)} if self.is_s3 else {}
        self._do(f"write {path}", lambda: self.fs.put_file(str(source), path, **how))

    def upload_all(self, source: Path, files: Mapping[str, Mapping[str, Any]], folder: str) -> dict[str, str]:
        """Upload and verify files of the local folder `source`; returns name -> tag, for files to which the store gave one.

        files  name -> {"size", "sha256"}

        A tag that equals the md5 of the local file proves that the file arrived. A file with any other tag (encrypted, or a
        store that is not S3) is read back and hashed. Raises StoreError where a file differs.
        """
        for name in files:
            self.upload(source / name, f"{folder}/{name}")
        there = self.listing(folder)
        tags = {name: tag(there[name]) for name in files if name in there}
        for name, entry in files.items():
            size = there.get(name, {}).get("size")
            if size != entry["size"] or not (
                tags[name] == s3_tag(source / name) or self.sha256(f"{folder}/{name}") == entry["sha256"]
            ):
                raise StoreError(
                    f"{folder}/{name} arrived in {self.url} with {size} bytes and not as it was sent, {entry['size']} bytes; nothing "
                    "finished is lost, run again to send it again"
                )
        return {name: found for name, found in tags.items() if found}

    def download(self, path: str, target: Path) -> None:
        """Download one file atomically: afterwards `target` is complete or unchanged.

        Raises StoreError where it cannot be written.
        """
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            part.touch()
        except OSError as error:
            raise StoreError(f"cannot write {target}: {error}") from error
        try:
            self._do(f"read {path} into {target}", lambda: self.fs.get_file(path, str(part)))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def listing(self, folder: str) -> dict[str, dict[str, Any]]:
        """All files under `folder`, nested folders included: path relative to `folder` -> fsspec's information."""

        def find() -> dict[str, dict[str, Any]]:
            found = self.fs.find(folder, detail=True)
            return {name: info for name, info in found.items() if name != folder and info["type"] == "file"}

        try:
            found = self._do(f"list {folder}", find)
        except FileNotFoundError:
            return {}
        inside = f"{folder.rstrip('/')}/"
        return {
            name.split(inside, 1)[1] if inside in name else name: info for name, info in sorted(found.items())
        }

    def children(self, folder: str) -> list[str]:
        """The names of the files and folders directly in `folder`."""
        try:
            found = self._do(f"list {folder}", lambda: self.fs.ls(folder, detail=False))
        except FileNotFoundError:
            return []
        return sorted({PurePosixPath(name).name for name in found if name.rstrip("/") != folder})

    def delete(self, path: str) -> None:
        """Delete one file if it exists."""

        def delete() -> None:
            if self.is_s3 or self.fs.exists(path):
                self.fs.rm_file(path)

        with suppress(FileNotFoundError):
            self._do(f"delete {path}", delete)

    def delete_folder(self, folder: str) -> None:
        """Delete all files under `folder`, if there are any."""
        with suppress(FileNotFoundError):
            self._do(f"delete {folder}", lambda: self.fs.rm(folder, recursive=True))

    def _do(self, what: str, act: Callable[[], Result]) -> Result:
        """Call `act`, with retries of transient failures. `what`: description for messages, such as `read PATH`."""
        for wait in (*WAITS, None):
            try:
                return act()
            except Exception as error:
                if self.is_local or getattr(error, "errno", None) in FULL:
                    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                        raise StoreError(f"cannot {what}: {error}") from error
                    raise
                code = _code(error)
                if isinstance(error, FileNotFoundError) and code not in {"NoSuchBucket", "NoSuchUpload"}:
                    raise
                passes = _passes(error, code)
                if passes and wait is not None:
                    time.sleep(wait * random.uniform(0.5, 1.5))
                    continue
                raise self._explained(error, what, passes) from None
        raise AssertionError("the last try returns or raises")

    def _explained(self, error: Exception, what: str, passes: bool) -> StoreError:
        """The error to raise: a StoreError if `passes` (transient), else a StoreRefused with advice."""
        if _code(error).isdigit():
            # The HTTP status of a HEAD request, whose response gives no reason: ask again with a listing.
            try:
                self.fs.ls(self.root)
            except Exception as reason:
                error = reason
        code = _code(error)
        name = type(error).__name__ if code.isdigit() or not code else code
        words = getattr(error, "strerror", None) if code else None  # the message without the errno
        text = f"store {self.url}: cannot {what}: {name}: {self._clean(words or error).rstrip('.')}"
        if passes:
            explained = StoreError(
                f"{text}; tried again and again. Nothing finished is lost: run again to go on"
            )
            explained.code = code
            return explained
        return StoreRefused(f"{text}; {addresses.remedy(code or name, self.url) or ELSE}")

    def _clean(self, error: object) -> str:
        return without_secrets(str(error), [*known_secrets(), *self.secrets])


def _secrets(options: Mapping[str, Any]) -> list[str]:
    """The values of options whose names match `SECRET_OPTION`, nested options included."""
    found = []
    for name, value in options.items():
        if isinstance(value, Mapping):
            found += _secrets(value)
        elif isinstance(value, str) and len(value) >= 8 and SECRET_OPTION.search(name):
            found.append(value)
    return found


def _code(error: BaseException) -> str:
    """The error code in an S3 server's response; "" where `error` has none."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _passes(error: Exception, code: str) -> bool:
    """Whether the failure is transient, so that a retry may succeed."""
    if code in PASSING_CODES:
        return True
    if type(error).__module__.split(".")[0] in CLIENT_LIBRARIES:
        return not any(word in type(error).__name__ for word in REFUSED)
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in PASSING


def part_size(size: int) -> int:
    """Bytes of each part of a file of `size` bytes."""
    return max(PART, -(-size // MOST_PARTS))


def tag(info: Mapping[str, Any]) -> str | None:
    """The store's tag of a file (ETag), if it has one. Equal tags mean equal content; different tags prove nothing."""
    found = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    return str(found).strip('"') if found else None


def s3_tag(path: Path) -> str:
    """The tag that S3 computes for a local file that `Files.upload` stores unencrypted.

    It is the file's md5, or after an upload in parts the md5 of the parts' md5 digests and the number of parts.
    """
    size = path.stat().st_size
    part = part_size(size)
    with path.open("rb") as file:
        if size < 2 * part:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        parts = []
        while content := file.read(part):
            parts.append(hashlib.md5(content, usedforsecurity=False).digest())
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


def _create_local(path: Path, content: bytes) -> None:
    """Write `path` atomically. Raises FileExistsError where it exists."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    replace_file(part, content)
    try:
        os.link(part, path)
    finally:
        part.unlink()


def replace_file(path: Path, content: bytes) -> None:
    """Write `path` atomically: a reader sees either the old content or the new."""
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


def leads_out(name: str) -> bool:
    """Whether a relative file name from a store points outside of its folder."""
    return name.startswith("/") or ".." in name.split("/")


def sha256_file(path: Path) -> str:
    """sha256 of a local file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
