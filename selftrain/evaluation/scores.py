"""The scores that rankers give to a pool's candidates: a column for each ranker, stored as one Parquet file for each pool."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftrain.cache_key import KEY_LENGTH, canonical_text
from selftrain.records import ROWS

ID = "candidate_id"
"""Name of the column with the candidates' ids; the others are named like their rankers."""
BEFORE = "scores.json"
"""File of older evaluations: pool -> ranker -> candidate id -> score."""


class Scores(Mapping[str, float]):
    """Candidate id -> score by one ranker, as two columns."""

    def __init__(self, ids: Any, values: NDArray[Any]) -> None:
        self.ids = ids
        """Arrow array of text."""
        self.values_by_row = values

    @classmethod
    def made(cls, scores: Mapping[str, float]) -> "Scores":
        """The same scores as columns."""
        import pyarrow as pa

        if isinstance(scores, Scores):
            return scores
        return cls(pa.array(scores.keys(), pa.string()), np.array(list(scores.values())))

    def of(self, ids: Any) -> NDArray[Any]:
        """The scores of the candidates `ids`, an Arrow array, in their order. Raises KeyError where one has none."""
        return self.values_by_row[rows_of(ids, self.ids)]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {id: row for row, id in enumerate(self.ids.to_pylist())}

    def __getitem__(self, id: str) -> float:
        score: float = self.values_by_row[self._rows[id]].item()
        return score

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids.to_pylist())

    def __len__(self) -> int:
        return len(self.ids)


def rows_of(ids: Any, among: Any) -> NDArray[np.int64]:
    """The row of each of `ids` in the Arrow column `among`. Raises KeyError where one is not there."""
    import pyarrow.compute as pc

    rows = pc.index_in(ids, value_set=among)
    if rows.null_count:
        raise KeyError(ids.filter(rows.is_null())[0].as_py())
    return np.asarray(rows.to_numpy(zero_copy_only=False), np.int64)


PoolScores = Mapping[str, Scores]
"""Ranker -> its scores of one pool."""


def write_scores(folder: Path, pools: Mapping[str, PoolScores]) -> None:
    """Write the scores of every pool into `folder`."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for pool, scores in pools.items():
        ids = pa.chunked_array([each.ids for each in scores.values()], pa.string()).unique()
        columns = {ID: ids}
        for ranker, each in scores.items():
            rows = pc.index_in(ids, value_set=each.ids)
            columns[ranker] = pa.array(each.values_by_row).take(rows)
        pq.write_table(pa.table(columns), _path(folder, pool), compression="zstd", row_group_size=ROWS)


def read_scores(folder: Path, pool: str, rankers: Collection[str] | None = None) -> dict[str, Scores]:
    """The scores of a pool in the artifact of an evaluation, by `rankers` only; None: by all."""
    import pyarrow.parquet as pq

    if (folder / BEFORE).is_file():
        stored = json.loads((folder / BEFORE).read_text())[pool]
        return {name: Scores.made(stored[name]) for name in stored if rankers is None or name in rankers}
    names = [name for name in pq.read_schema(_path(folder, pool)).names if name != ID]
    wanted = [name for name in names if rankers is None or name in rankers]
    table = pq.read_table(_path(folder, pool), columns=[ID, *wanted]).combine_chunks()
    ids = table[ID].combine_chunks()
    found = {}
    for name in wanted:
        column = table[name].combine_chunks()
        known = column.is_valid()
        own = ids if not column.null_count else ids.filter(known)
        found[name] = Scores(own, column.filter(known).to_numpy())
    return found


def scores_digest(pools: Mapping[str, PoolScores], result: Any) -> str:
    """`fingerprint` of {"scores": pools, "result": result}, without a copy of the scores as one text."""
    sha = hashlib.sha256()
    sha.update(b'{"result":' + canonical_text(result, "key.result").encode() + b',"scores":{')
    for at, pool in enumerate(sorted(pools)):
        sha.update(b"," * bool(at) + json.dumps(pool).encode() + b":{")
        for number, ranker in enumerate(sorted(pools[pool])):
            sha.update(b"," * bool(number) + json.dumps(ranker).encode() + b":{")
            sha.update(b",".join(_pieces(pools[pool][ranker])) + b"}")
        sha.update(b"}")
    sha.update(b"}}")
    return sha.hexdigest()[:KEY_LENGTH]


def _pieces(scores: Scores) -> Iterator[bytes]:
    """The scores as JSON without braces, in the order of their ids."""
    names = scores.ids.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        values = scores.values_by_row[rows].tolist()
        piece = {names[row]: value for row, value in zip(rows, values, strict=True)}
        yield json.dumps(piece, separators=(",", ":"), allow_nan=False)[1:-1].encode()


def _path(folder: Path, pool: str) -> Path:
    return folder / f"scores-{pool}.parquet"
