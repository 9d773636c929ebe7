"""Reads data sets from the Hugging Face hub, or from a local folder in the hub's layout."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from selftrain.errors import DataError, RunError
from selftrain.problems.rows import Row, digest_files

_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve_commit(hub: str, revision: str) -> str:
    """The commit of the data set `hub` at `revision` (40 hex digits); for a local folder, the sha256 of its files (64 digits).

    Asks the hub, unless `revision` is a full commit. Raises `DataError` where the hub has no such data set or revision,
    `RunError` where the hub cannot be reached.
    """
    if Path(hub).is_dir():
        found = {path.relative_to(hub): path for path in Path(hub).rglob("*") if path.is_file()}
        shown = {name: path for name, path in found.items() if not any(part[0] == "." for part in name.parts)}
        # The digest covers file names too, since they determine the subset and the split.
        lines = [f"{name.as_posix()} {digest_files([path])}\n" for name, path in sorted(shown.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    if _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        commit = HfApi().dataset_info(hub, revision=revision).sha
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise DataError(
            f"{hub}: neither a local folder nor a data set on the hub with revision {revision!r}: {error}"
        ) from error
    except Exception as error:  # the exception types depend on the version of the HTTP client
        raise RunError(
            f"cannot ask the hub which commit {hub!r} has at revision {revision!r}: {error}; without a network give the "
            "full commit as `revision` and keep the data set in the local cache, or use files"
        ) from error
    if commit is None:
        raise RunError(
            f"the hub names no commit for {hub!r} at revision {revision!r}; give the full commit as `revision`"
        )
    return commit


def check_splits(hub: str, revision: str, splits: Iterable[str]) -> None:
    """Raise `DataError` where a data set lacks one of `splits`, `RunError` where the hub cannot be reached. Reads no rows."""
    import datasets

    with _asking(hub, f"ask the hub for the splits of {hub}"):
        known = datasets.get_dataset_split_names(hub, revision=_given(hub, revision))
    asked = [name for split in splits for name in re.findall(r"(\w+)(?:\[[^\]]*\])?", split)]
    if missing := [name for name in asked if name not in known]:
        raise DataError(f"{hub}: no split {', '.join(missing)}; it has {', '.join(known)}")


def subsets(hub: str, revision: str) -> list[str]:
    """The subsets of a data set. Raises `DataError` where there is no such data set, `RunError` where the hub cannot be reached."""
    import datasets

    with _asking(hub, f"ask the hub for the subsets of {hub}"):
        return list(datasets.get_dataset_config_names(hub, revision=_given(hub, revision)))


def read_hub(hub: str, revision: str, subset: str | None, split: str) -> Iterator[Row]:
    """The rows of one split of a data set. Loading scripts in the data set are never run.

    Raises `DataError` where the data set has no such subset or split, `RunError` where it cannot be loaded.
    """
    import datasets

    name = "/".join(filter(None, (hub, subset)))
    with _asking(f"{name}, split {split!r}", f"load {name}, split {split!r}, from the hub"):
        table = datasets.load_dataset(hub, subset, split=split, revision=_given(hub, revision))
    for number, fields in enumerate(table, 1):
        yield Row(fields, f"{name}[{split}]:{number}", name)


def _given(hub: str, revision: str) -> str | None:
    return None if Path(hub).is_dir() else revision


@contextmanager
def _asking(name: str, what: str) -> Iterator[None]:
    """Convert the exceptions of `datasets`: those for an unknown data set, subset or split into DataError, others into RunError."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise DataError(f"{name}: {error}") from error
    except Exception as error:
        raise RunError(f"cannot {what}: {error}") from error
