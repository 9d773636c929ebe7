"""Finds the folder of a reranker's or a generator's checkpoint, by what a user names:

FOLDER                    with config.json
RUN                       a run's folder, or its name in runs/
champion[:NAME][@STORE]   the champion of the config NAME in a store; by default the only champion in
                          the store of SELFTRAIN_STORE, else in runs/store
s3://... or another URL   of a folder with the checkpoint's files, or of an artifact: STORE/train_reward/KEY
OWNER/NAME[@REVISION]     on the Hugging Face hub; REVISION: a commit, branch or tag
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from selftrain.errors import UsageError
from selftrain.stage import ArtifactRef
from selftrain.store.runfile import NAME, find_run, read_run, stage_place
from selftrain.store.store import Store, find_store

if TYPE_CHECKING:
    from selftrain.champion.registry import Contender

KINDS = (".safetensors", ".json", ".model", ".txt", ".jinja")
"""Endings of the files of a checkpoint that are downloaded; pickles are not."""
_CHAMPION = re.compile(r"champion(?::(?P<name>[\w.-]+))?(?:@(?P<store>.+))?")
_ARTIFACT = re.compile(r"(?P<store>.+)/(?P<stage>train_reward|sft|ppo)/(?P<key>[0-9a-f]{32})/?")
_HUB = re.compile(r"(?P<owner>[\w.-]+)/[\w.-]+(?:@(?P<revision>[\w./-]+))?")


class _Role(NamedTuple):
    """A role of a checkpoint.

    name          as in messages
    of_run        (a run's folder, its record) -> folder of the checkpoint
    of_champion   name of the field of a `Contender` with the checkpoint's artifact
    """

    name: str
    of_run: Callable[[Path, Mapping[str, Any]], Path]
    of_champion: str


def reranker_folder(place: str | Path) -> Path:
    """The folder of the reranker at `place`; of a run it is the last reranker.

    What is in a remote store, at a URL or on the hub is downloaded, if it is not in this machine's cache.

    Raises UsageError where there is no reranker.
    """
    return _found(place, _Role("reranker", _reranker_of, "reranker"))


def generator_folder(place: str | Path, policy: str = "sft") -> Path:
    """The folder of the generator at `place`.

    policy  of a run: `sft`, which its rerankers are evaluated with, `ppo-N`, or `last`

    Raises UsageError where there is no generator.
    """

    def of_run(folder: Path, run: Mapping[str, Any]) -> Path:
        policies = [name for name in run["stages"] if name == "sft" or name.startswith("ppo-")]
        wanted = policies[-1] if policy == "last" and policies else policy
        if wanted not in policies:
            raise UsageError(
                f"{folder}: no policy {policy!r} in this run; it has {', '.join(policies) or 'none yet'}"
            )
        return stage_place(run, wanted)

    return _found(place, _Role("generator", of_run, "generator"))


def _found(place: str | Path, role: _Role) -> Path:
    try:
        return _find(place, role)
    except OSError as error:  # without permission, with a name that is too long, or at a URL without a server
        raise UsageError(f"{str(place)[:200]}: cannot be read: {error.strerror or error}") from error


def _find(place: str | Path, role: _Role) -> Path:
    path, text = Path(place), str(place)
    if (path / "config.json").is_file():
        return path
    if champion := find_champion(text):
        return _champion(*champion, role.of_champion)
    if "://" in text:
        return _at_url(text, role)
    try:
        folder = find_run(path)
    except UsageError:
        hub = _HUB.fullmatch(text)
        if path.exists() or hub is None or Path(hub["owner"]).exists():
            raise UsageError(
                f"{path}: expected a {role.name}'s folder (with config.json) or a run's folder (with {NAME}), a run's name, "
                "champion, a URL or a hub's OWNER/NAME"
            ) from None
        from selftrain.models.weights import hub_folder

        return hub_folder(text.partition("@")[0], hub["revision"])
    return role.of_run(folder, read_run(folder))


def _reranker_of(path: Path, run: Mapping[str, Any]) -> Path:
    trained = [name for name, ref in run["stages"].items() if ref["stage"] == "train_reward"]
    if not run["reranker"] or not trained:
        raise UsageError(f"{path}: this run has not trained a reranker yet; finish it with `selftrain run`")
    folder = (path / run["reranker"]).resolve()
    if (folder / "config.json").is_file():
        return folder
    # The run's folder is a copy elsewhere, or this machine's cache has evicted what is in a remote store.
    return stage_place(run, trained[-1])


def find_champion(place: str) -> "tuple[Store, Contender] | None":
    """The store and the champion that `champion[:NAME][@STORE]` names; None for another place. Raises UsageError if it has none."""
    named = _CHAMPION.fullmatch(place)
    if named is None:
        return None
    from selftrain.champion.registry import champion_of, find_registry
    from selftrain.config import default_store

    store = find_store(named["store"] or default_store())
    return store, champion_of(find_registry(store, named["name"]))


def _champion(store: Store, champion: "Contender", field: str) -> Path:
    """The artifact `field` of the champion."""
    ref = getattr(champion, field)
    if ref is None:
        raise UsageError(
            f"the champion in {store.url} was promoted by hand, and its {field} is not known; name a folder"
        )
    return store.place(ArtifactRef.parse(ref))


def _at_url(url: str, role: _Role) -> Path:
    """The checkpoint at `url`, in this machine's cache."""
    from selftrain.store.artifact_cache import cache_folder
    from selftrain.store.files import Files

    if artifact := _ARTIFACT.fullmatch(url):
        return Store(artifact["store"]).path(ArtifactRef(artifact["stage"], artifact["key"]))
    files = Files(url)
    there = {name: info for name, info in files.listing(files.root).items() if name.endswith(KINDS)}
    if "config.json" not in there:
        raise UsageError(
            f"{url}: expected the folder of a {role.name} (with config.json), or an artifact STORE/train_reward/KEY; there are "
            f"{len(there)} files of a checkpoint"
        )
    if files.is_local:
        return Path(files.root)
    # The name covers the files' sizes and tags, so that a checkpoint that has changed is downloaded anew.
    version = hashlib.sha256(repr((url, sorted(map(str, there.values())))).encode()).hexdigest()[:32]
    folder = cache_folder() / "models" / version
    for name in there:
        if "/" not in name and not (folder / name).is_file():
            files.download(f"{files.root.rstrip('/')}/{name}", folder / name)
    return folder
