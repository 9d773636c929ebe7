"""The records that stages pass to each other, stored as Parquet.

Result columns hold what a stage computed; measured columns hold times, memory and captured output. Only result columns enter a
record's digest, so two runs with the same results have the same digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from sandbox.compare import DEFAULT_RULE
from sandbox.verdicts import Verdict
from selftrain.errors import DataError


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


Record = TypeVar("Record", Problem, Candidate, Execution, Pair)


def write_records(path: Path, records: Iterable[Any], kind: type) -> None:
    """Write `records`, all of type `kind`, as one Parquet file. Raises DataError for a number that is NaN or infinite."""
    import pyarrow.parquet as pq

    table = _table(list(records), kind)
    _check_finite(table, path)
    pq.write_table(table, path, compression="zstd")


def _check_finite(table: Any, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in table.column_names:
        if pa.types.is_floating(table[name].type):
            wrong = table.filter(pc.invert(pc.fill_null(pc.is_finite(table[name]), True)))
            if wrong.num_rows:
                first = wrong.slice(0, 1).to_pylist()[0]
                raise DataError(
                    f"{path.name}: {name} is {first[name]} in {wrong.num_rows} of {table.num_rows} rows, "
                    f"{next(iter(first.values()))} for one; expected finite numbers: the model that computed them is damaged "
                    "or has diverged"
                )


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """Read what `write_records` wrote."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    tuples = [f.name for f in fields(kind) if str(f.type).startswith("tuple")]
    for row in rows:
        for name in tuples:
            row[name] = tuple(row[name])
        if "verdict" in row:
            row["verdict"] = Verdict(row["verdict"])
    return [kind(**row) for row in rows]


def digest(records: Sequence[Any]) -> str:
    """sha256 over the result columns of `records`, in their order."""
    sha = hashlib.sha256()
    for record in records:
        row = {f.name: getattr(record, f.name) for f in fields(record) if not f.metadata.get("measured")}
        sha.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return sha.hexdigest()


def _table(records: list[Any], kind: type) -> Any:
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
    schema = pa.schema([(f.name, types[str(f.type)]) for f in fields(kind)])
    return pa.Table.from_pylist([asdict(record) for record in records], schema=schema)
