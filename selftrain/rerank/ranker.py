"""Loads what ranks at a place: the picker of a run or of the champion, or a reranker by itself."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from selftrain.errors import UsageError
from selftrain.models.weights import checkpoint_digest
from selftrain.rerank.picker import Picker
from selftrain.rerank.places import find_champion
from selftrain.rerank.reranker import Ranking, Reranker
from selftrain.store.runfile import find_run


def load_ranker(place: str | Path, way: str | None = None, device: str = "cpu") -> Picker | Reranker:
    """The picker of a run or of an evaluated champion; of any other place (`selftrain.rerank.places`) the reranker alone.

    way  as in `Picker.load`

    Raises UsageError where there is neither, or `way` is given for a reranker alone.
    """
    if _has_picker(place):
        return Picker.load(place, way, device)
    if way is not None:
        raise UsageError(f"{place} is a reranker by itself, which ranks by its score; got the way {way!r}")
    return Reranker.load(place, device)


def rank_many(
    ranker: Picker | Reranker,
    problems: Sequence[tuple[str, Sequence[str], str | None]],
    mean_logprobs: Sequence[Sequence[float] | None],
) -> Sequence[Ranking]:
    """Rankings of several (prompt, candidates, language). A picker is given their log-probabilities (`Picker.rank_many`), where they
    are known; a reranker by itself does not use them."""
    if isinstance(ranker, Picker):
        return ranker.rank_many(problems, mean_logprobs)
    return ranker.rank_many(problems)


def identity(ranker: Picker | Reranker) -> str:
    """The first 12 hex digits of a digest of what decides the scores: the files of the reranker, and of a picker its rule too.

    Raises UsageError where the files cannot be read.
    """
    reranker = ranker.reranker if isinstance(ranker, Picker) else ranker
    assert reranker.folder is not None
    parts: list[object] = [checkpoint_digest(reranker.folder)]
    if isinstance(ranker, Picker):
        generator = ranker.run["stages"].get("sft", {}).get("key") if ranker.weight else None
        parts += [ranker.way, ranker.weight, generator]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _has_picker(place: str | Path) -> bool:
    if os.path.isfile(Path(place) / "config.json"):  # `Path.is_file` raises for a folder that may not be read
        return False
    if found := find_champion(str(place)):
        from selftrain.champion.registry import evaluation_of

        return evaluation_of(*found) is not None
    with suppress(UsageError):
        find_run(place)
        return True
    return False
