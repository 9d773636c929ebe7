"""`selftrain gc`: removes from a store the artifacts that no run needs any more.

Kept are the artifacts in the records of the newest finished runs of each name, of unfinished runs and of the registry, with
all their inputs; builds in progress; and everything that was written recently. Files outside of the store's own layout are
never touched.
"""

import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from selftrain.cache_key import KEY_LENGTH
from selftrain.errors import UsageError
from selftrain.stage import ArtifactRef
from selftrain.store.runrecords import registry_records, run_records, when
from selftrain.store.store import LEASE, MANIFEST, PROGRESS, REGISTRY, RUNS, Store
from selftrain.units import count_of, size

HOUR, WEEK = 3600.0, 7 * 86400.0
"""In seconds."""
KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")
NAMED = re.compile(rf"([a-z_]+)/({KEY.pattern})")
"""A reference STAGE/KEY in a record."""
Info = Mapping[str, Any]
"""fsspec's information about a file."""


@dataclass
class Garbage:
    """Something to remove.

    what     description for the user
    size     bytes
    folders  paths in the store, removed after `files`
    files    paths in the store
    """

    what: str
    size: int = 0
    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def collect(store: Store, keep_runs: int, dry_run: bool, say: Callable[[str], None]) -> int:
    """Remove what no run needs; returns the number of bytes. `say`: takes a line for each removal. `dry_run`: remove nothing.

    Raises UsageError where nothing was stored in `store`, or where no run has left a record; StoreError where a file among the
    records is none.
    """
    if keep_runs < 1:
        raise UsageError(f"--keep-runs: expected 1 or more, got {keep_runs}")
    stages = [name for name in store.files.children(store.root) if _is_stage(store, name)]
    records = run_records(store)
    if not stages and not records:
        raise UsageError(
            f"{store.url} is not a store: expected folders STAGE/KEY that `selftrain run` wrote; nothing was removed"
        )
    if not records:
        raise UsageError(
            f"no run has left a record in {store.url}/{RUNS}, so what is needed is not known; run your configs again (all is "
            "found cached), then collect. Nothing was removed"
        )
    now, verb = time.time(), "would remove" if dry_run else "removed"
    found = {stage: store.files.listing(f"{store.root}/{stage}") for stage in stages}
    records = run_records(store)  # after the listing, so that a run which has begun meanwhile is included
    runs = runs_kept(records, keep_runs, now)
    named = refs_in([records[name] for name in runs]) | refs_in(registry_records(store).values())
    kept = with_inputs(store, named)
    total = 0
    old = sorted(records.keys() - set(runs))
    of_runs = [
        Garbage(f"record of run {name.removesuffix('.json')}", files=[f"{store.root}/{RUNS}/{name}"])
        for name in old
    ]
    for garbage in [*of_stages(store, found, kept, now), *of_runs]:
        if not dry_run:
            for path in garbage.files:
                store.files.delete(path)
            for folder in garbage.folders:
                store.files.delete_folder(folder)
        total += garbage.size
        say(f"{verb} {garbage.what:<60} {size(garbage.size):>10}")
    for what, freed in of_this_machine(store, now, dry_run):
        total += freed
        say(f"{verb} {what:<60} {size(freed):>10}")
    say(
        f"{verb} {size(total)}; kept {count_of(len(kept), 'artifact')} of {count_of(len(runs), 'run')} and the registry"
    )
    return total


def runs_kept(records: Mapping[str, Any], keep_runs: int, now: float) -> list[str]:
    """The records (NAME/ID.json) to keep: `keep_runs` finished ones per name, and unfinished ones updated within a week."""
    finished: dict[str, list[tuple[float, str]]] = defaultdict(list)
    kept = []
    for name, record in records.items():
        if record.get("finished") is not None:
            finished[record["name"]].append((record["finished"], name))
        elif now - when(record) < WEEK:
            kept.append(name)
    for runs in finished.values():
        kept += [name for _, name in sorted(runs)[-keep_runs:]]
    return kept


def refs_in(values: Iterable[Any]) -> set[ArtifactRef]:
    """All artifacts to which JSON values refer, as {"stage": ..., "key": ...} or as text STAGE/KEY."""
    refs: set[ArtifactRef] = set()
    todo = list(values)
    while todo:
        value = todo.pop()
        if isinstance(value, str) and (found := NAMED.fullmatch(value)):
            refs.add(ArtifactRef(found[1], found[2]))
        elif isinstance(value, Mapping):
            if isinstance(value.get("stage"), str) and isinstance(value.get("key"), str):
                refs.add(ArtifactRef(value["stage"], value["key"]))
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return refs


def with_inputs(store: Store, refs: Iterable[ArtifactRef]) -> set[ArtifactRef]:
    """`refs` and, recursively, their inputs."""
    kept: set[ArtifactRef] = set()
    todo = set(refs)
    while todo:
        ref = todo.pop()
        kept.add(ref)
        manifest = store.manifest(ref)
        if manifest is not None:
            todo |= refs_in(manifest.get("inputs", {}).values()) - kept
    return kept


def of_stages(
    store: Store, found: Mapping[str, Mapping[str, Info]], kept: set[ArtifactRef], now: float
) -> Iterator[Garbage]:
    """What to remove from the stages' folders. `found`: stage -> path of a file in the stage's folder -> its information."""
    for stage, files in found.items():
        keys: dict[str, dict[str, Info]] = defaultdict(dict)
        for name, info in files.items():
            key, _, inside = name.partition("/")
            if KEY.fullmatch(key) and inside:
                keys[key][inside] = info
        for key, parts in keys.items():
            ref = ArtifactRef(stage, key)
            leases = {name: info for name, info in parts.items() if name.startswith(f"{LEASE}/")}
            with store.lock(ref, wait=False) as free:
                if free and not _young(leases.values(), now, HOUR):
                    yield from of_key(store, ref, parts, ref in kept, now)


def of_key(
    store: Store, ref: ArtifactRef, files: Mapping[str, Info], kept: bool, now: float
) -> Iterator[Garbage]:
    """What to remove from the folder of one key that no process is building. `files`: path in that folder -> information."""
    where = f"{store.root}/{ref.stage}/{ref.key}"
    manifest = store.manifest(ref) if MANIFEST in files else None
    if manifest is not None and not kept:
        if not _young(files.values(), now, HOUR):
            # The manifest is deleted first: an interruption leaves an attempt without manifest, never an artifact without files.
            yield Garbage(f"artifact {ref}", _bytes(files.values()), [where], [f"{where}/{MANIFEST}"])
        return
    parts: dict[str, list[Info]] = defaultdict(list)
    for name, info in files.items():
        if "/" in name:
            parts[name.partition("/")[0]].append(info)
    for part, infos in parts.items():
        if manifest is not None and part == manifest["attempt"]:
            continue
        what = {LEASE: "lease of", PROGRESS: "progress of"}.get(part, f"attempt {part} of")
        age = WEEK if part == PROGRESS and manifest is None else HOUR
        if not _young(infos, now, age):
            yield Garbage(f"{what} {ref}", _bytes(infos), [f"{where}/{part}"])


def of_this_machine(store: Store, now: float, dry_run: bool) -> Iterator[tuple[str, int]]:
    """Remove abandoned builds and copies unused for a week from this machine; yields the description and bytes of each."""
    for folder in sorted(store.local.glob("work/*/*")):
        files = [path.stat() for path in folder.rglob("*") if path.is_file()]
        if any(now - file.st_mtime < WEEK for file in files):
            continue
        with store.lock(ArtifactRef(folder.parent.name, folder.name), wait=False) as free:
            if free:
                if not dry_run:
                    shutil.rmtree(folder, ignore_errors=True)
                yield f"build {folder.parent.name}/{folder.name}", sum(file.st_size for file in files)
    if not store.is_local:
        for copy, size in store.cache.older(WEEK, dry_run):
            yield f"copy {copy.parent.parent.name}/{copy.parent.name}", size


def _is_stage(store: Store, name: str) -> bool:
    if not re.fullmatch(r"[a-z_]+", name) or name in {RUNS, REGISTRY}:
        return False
    return any(KEY.fullmatch(key) for key in store.files.children(f"{store.root}/{name}"))


def _young(files: Iterable[Info], now: float, seconds: float) -> bool:
    """Whether one of `files` was written less than `seconds` ago, or has no known time."""
    return any((when := _modified(info)) is None or now - when < seconds for info in files)


def _modified(info: Info) -> float | None:
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        when = info.get(name)
        if isinstance(when, datetime):
            return when.timestamp()
        if isinstance(when, int | float):
            return float(when)
    return None


def _bytes(files: Iterable[Info]) -> int:
    return sum(info["size"] for info in files)
