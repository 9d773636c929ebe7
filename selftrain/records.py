"""The records that stages pass to each other, stored as Parquet.

Result columns hold what a stage computed; measured columns hold times, memory and captured output. Only result columns enter a
record's digest, so two runs with the same results have the same digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from sandbox.compare import DEFAULT_RULE
from sandbox.verdicts import Verdict
from selftrain.errors import DataError
from selftrain.units import count_of

PromptStyle = Literal["completion", "chat"]
"""How a generator is asked: see `ModelConfig.prompt_style`."""


def measured(**kwargs: Any) -> Any:
    """A dataclass field that does not enter the record's digest."""
    return field(metadata={"measured": True}, **kwargs)


def cut(text: str, stops: Iterable[str]) -> str:
    """`text` up to the first of the texts `stops` in it."""
    return text[: min((at for at in map(text.find, stops) if at >= 0), default=len(text))]


@dataclass(frozen=True, slots=True)
class Problem:
    """A programming problem in one language.

    id             unique over all languages, e.g. `HumanEval_11_string_xor.py`
    task           the same in all languages; a task's problems are in one split
    language       short name in the sandbox's table: py, cpp, java, php, ts, cs, sh, js, ...
    prompt         what the generator completes
    tests          `program` kind: appended to prompt + completion, as MultiPL-E does; else empty
    cases          `stdio` kind: [{"stdin", "stdout"}]; else empty
    stop_tokens    a completion is cut before the first of these texts that occurs in it
    split          sft, rl, validation or test
    source         bank, or the name of a file or data set
    response       an answer to learn from (split sft) or to measure the loss on (validation); it may be wrong
    example_tests  like `tests`, but made from the examples that the prompt shows; empty if it shows none
    compare        `stdio` kind: the rule by which output is compared (`sandbox.compare`)
    checker        `stdio` kind: a program that compares the output, {"language", "program"}; None: `compare` does
    time_limit     CPU seconds that the source allows one run; None: unspecified
    memory_limit_bytes  memory that the source allows one run; None: unspecified
    """

    id: str
    task: str
    language: str
    prompt: str
    tests: str
    split: str
    source: str
    stop_tokens: tuple[str, ...] = ()
    cases: tuple[dict[str, str], ...] = ()
    response: str | None = None
    example_tests: str = ""
    compare: str = DEFAULT_RULE
    checker: dict[str, str] | None = None
    time_limit: float | None = None
    memory_limit_bytes: int | None = None

    @property
    def kind(self) -> str:
        """`stdio` (input and expected output) or `program` (tests appended to the program)."""
        return "stdio" if self.cases else "program"

    def cut(self, text: str) -> str:
        """A completion's `text` up to the first stop token in it."""
        return cut(text, self.stop_tokens)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled completion.

    id             `PROBLEM_ID#SAMPLE`
    sample         0..n-1, or -1 for the greedy completion
    completion     text after the prompt, cut at the first stop token; in prompt style `chat` what the sandbox's rule takes from
                   the answer (`selftrain.problems.chat`)
    token_ids      the tokens that the completion keeps (`selftrain.sampling.stopping`), with the end token if it was sampled; in
                   prompt style `chat` the tokens of the whole answer
    logprob        sum over `token_ids` of log p(token | prompt, tokens before) at temperature 1, in nats
    finish_reason  "stop" (end token or stop token) or "length"
    sampled        number of tokens that the engine sampled for it, those of the stop token included
    """

    id: str
    problem_id: str
    sample: int
    completion: str
    token_ids: tuple[int, ...]
    logprob: float
    finish_reason: str
    sampled: int = measured(default=0)


@dataclass(frozen=True, slots=True)
class CandidateText:
    """A candidate without its tokens: what stages read of it that need its text alone."""

    id: str
    problem_id: str
    sample: int
    completion: str


@dataclass(frozen=True, slots=True)
class Execution:
    """What the sandbox found for one candidate.

    examples_passed  whether the candidate passes the examples in the prompt; None if there are none
    pass_rate        share of the problem's test cases that the candidate passes; None unless every case was run
    """

    candidate_id: str
    problem_id: str
    verdict: Verdict
    exit_code: int | None
    examples_passed: bool | None = None
    pass_rate: float | None = None
    cpu_seconds: float = measured(default=0.0)
    wall_seconds: float = measured(default=0.0)
    peak_memory_bytes: int = measured(default=0)
    output: str = measured(default="")

    @property
    def passed(self) -> bool:
        """Whether the program passed all tests."""
        return self.verdict is Verdict.passed


@dataclass(frozen=True, slots=True)
class Pair:
    """A right (chosen) and a wrong (rejected) program for one problem.

    chosen_id, rejected_id   POOL/CANDIDATE, e.g. `ppo-1/HumanEval_11_string_xor.py#3`
    kind            hard_negative, on_policy, easy or random, see `selftrain.stages.mine`
    round           the reward model that this pair was mined for, 1..R
    chosen_score, rejected_score   scores by the reranker that mined the pair; None in round 1
    gap             share of the problem's test cases that only the right one passes; 1 if unknown
    task            the problem's task, which is the same in all languages; empty if the problem is its own task
    """

    problem_id: str
    prompt: str
    chosen: str
    rejected: str
    chosen_id: str
    rejected_id: str
    kind: str
    round: int
    chosen_score: float | None = None
    rejected_score: float | None = None
    gap: float = 1.0
    task: str = ""


Record = TypeVar("Record", bound=Any)


ROWS = 16_384
"""Largest number of rows of a row group, and of rows that a reader or a writer of a large file holds at once."""


class Writer:
    """Writes records of one type as one Parquet file, a row group at a time, and computes their digest. Use it in a `with`.

    A file of at most `ROWS` records is the same, byte for byte, however it was written.
    """

    def __init__(self, path: Path, kind: type) -> None:
        self._path = path
        self._kind = kind
        self._waiting: list[Any] = []
        self._sha = hashlib.sha256()
        self._written = False

    def __enter__(self) -> Writer:
        import pyarrow.parquet as pq

        self._file = pq.ParquetWriter(self._path, schema(self._kind), compression="zstd")
        return self

    def add(self, records: Iterable[Any]) -> None:
        """Write `records` after those before. Raises DataError for a number that is NaN or infinite."""
        for record in records:
            self._waiting.append(record)
            if len(self._waiting) == ROWS:
                self._flush()

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            if failed is None and (self._waiting or not self._written):
                self._flush()
        except DataError:
            failed = DataError
            raise
        finally:
            self._file.close()
            if failed is not None:
                self._path.unlink()

    def _flush(self) -> None:
        written = table(self._waiting, self._kind)
        _check_finite(written, self._path)
        self._file.write_table(written)
        for record in self._waiting:
            self._sha.update(_line(record))
        self._waiting = []
        self._written = True

    @property
    def digest(self) -> str:
        """What `digest` computes of all records; known once the file is closed."""
        return self._sha.hexdigest()


def write_records(path: Path, records: Iterable[Any], kind: type) -> str:
    """Write `records`, all of type `kind`, as one Parquet file; returns their digest.

    Raises DataError for a number that is NaN or infinite.
    """
    with Writer(path, kind) as writer:
        writer.add(records)
    return writer.digest


def _check_finite(table: Any, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in table.column_names:
        if pa.types.is_floating(table[name].type):
            wrong = table.filter(pc.invert(pc.fill_null(pc.is_finite(table[name]), True)))
            if wrong.num_rows:
                first = wrong.slice(0, 1).to_pylist()[0]
                raise DataError(
                    f"{path.name}: {name} is {first[name]} in {wrong.num_rows} of {count_of(table.num_rows, 'row')}, "
                    f"{next(iter(first.values()))} for one; expected finite numbers: the model that computed them is damaged "
                    "or has diverged"
                )


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """Read what `write_records` wrote: the columns that are fields of `kind`."""
    return [record for records in iter_records(path, kind) for record in records]


def iter_records(path: Path, kind: type[Record]) -> Iterator[list[Record]]:
    """The records of a file in their order, at most `ROWS` at a time."""
    for rows in iter_columns(path, kind, [f.name for f in fields(kind)]):
        yield as_records(rows, kind)


def slice_records(path: Path, kind: type[Record], start: int, stop: int) -> list[Record]:
    """The records from `start` to before `stop`; only the row groups that contain them are read."""
    import pyarrow.parquet as pq

    found: list[Record] = []
    with pq.ParquetFile(path) as file:
        names = _columns(path, file, kind, [f.name for f in fields(kind)])
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if first < stop and start < first + rows:
                low = max(start - first, 0)
                part = file.read_row_group(group, names).slice(low, min(stop - first, rows) - low)
                found += as_records(part, kind)
            first += rows
    return found


def row_count(path: Path) -> int:
    """The number of records in a file."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def iter_columns(path: Path, kind: type, names: Sequence[str]) -> Iterator[Any]:
    """The columns `names` of a file of records of type `kind`, those that it has, as Arrow tables of at most `ROWS` rows. Raises
    DataError where it lacks one whose field has no default."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS, columns=_columns(path, file, kind, names)):
            yield pa.Table.from_batches([batch])


def _columns(path: Path, file: Any, kind: type, names: Sequence[str]) -> list[str]:
    """Those of `names` that the file has. Raises DataError where it lacks one that it needs."""
    there = set(file.schema_arrow.names)
    needed = {f.name for f in fields(kind) if f.default is f.default_factory is MISSING}
    if missing := [name for name in names if name in needed and name not in there]:
        raise DataError(
            f"{path}: it has no column {', '.join(missing)}; expected a row for each {kind.__name__}, as this version writes them: "
            "build it anew"
        )
    return [name for name in names if name in there]


def as_records(rows: Any, kind: type[Record]) -> list[Record]:
    """The records of an Arrow table; fields without a column take their defaults."""
    tuples = [f.name for f in fields(kind) if str(f.type).startswith("tuple")]
    found = rows.to_pylist()
    for row in found:
        for name in tuples:
            if name in row:
                row[name] = tuple(row[name])
        if "verdict" in row:
            row["verdict"] = Verdict(row["verdict"])
    return [kind(**row) for row in found]


def digest(records: Iterable[Any]) -> str:
    """sha256 over the result columns of `records`, in their order."""
    sha = hashlib.sha256()
    for record in records:
        sha.update(_line(record))
    return sha.hexdigest()


def _line(record: Any) -> bytes:
    row = {f.name: getattr(record, f.name) for f in fields(record) if not f.metadata.get("measured")}
    return json.dumps(row, sort_keys=True).encode() + b"\n"


def schema(kind: type) -> Any:
    """The Arrow schema of the records of type `kind`."""
    import pyarrow as pa

    types = {
        "str": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "str | None": pa.string(),
        "int | None": pa.int64(),
        "float | None": pa.float64(),
        "bool | None": pa.bool_(),
        "Verdict": pa.string(),
        "tuple[str, ...]": pa.list_(pa.string()),
        "tuple[int, ...]": pa.list_(pa.int32()),
        "tuple[dict[str, str], ...]": pa.list_(pa.struct([("stdin", pa.string()), ("stdout", pa.string())])),
        "dict[str, str] | None": pa.struct([("language", pa.string()), ("program", pa.string())]),
    }
    return pa.schema([(f.name, types[str(f.type)]) for f in fields(kind)])


def table(records: Sequence[Any], kind: type) -> Any:
    """The records as an Arrow table."""
    import pyarrow as pa

    names = schema(kind)
    columns = [pa.array([getattr(record, f.name) for record in records], f.type) for f in names]
    return pa.Table.from_arrays(columns, schema=names)
