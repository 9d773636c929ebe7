"""`selftrain rank RUN --batch IN OUT`: ranks the candidates of many problems, one a line.

A line of IN is {"prompt", "candidates"}, with `language`, `id` and `mean_logprobs` if they are known; `completions` is another name
for `candidates`, as `selftrain generate` writes it. `mean_logprobs` is the mean log-probability per token of each candidate under the
run's generator, in nats; where the way to rank uses them, and a line has none, the generator is loaded and computes them. A line of
OUT answers one line of IN, in the same order:

    line      its number in IN
    sha256    the first digits of that line's digest, by which a resumed batch knows that IN is the same
    by        the way to rank
    reranker  the first digits of a digest of the reranker's files, and of a run's way to rank: a batch goes on with no other one
    id        as in IN, if it has one
    best      index of the best candidate
    pick      its text
    scores    as many as candidates; null for one that cannot be scored
    far       whether the texts are unlike those that the run was trained on, so that their order says little: where
              log-probabilities are used
    close     whether the best and the next are too close to tell: of a run with a calibration
    error     in place of the last five, why the line cannot be ranked
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from flows.lines import Row, check_files, encoded, go_on, read_rows, reading, tell
from flows.progress import Progress
from sandbox.errors import UsageError as SandboxUsageError
from selftrain.errors import UsageError
from selftrain.units import count_of

WINDOW = 64
"""Lines that are scored together, and after which the output is written."""

EXAMPLES = """\
examples:
  selftrain rank runs/demo --prompt p.txt a.py b.py       three files, the best first
  selftrain rank runs/demo --prompt p.txt candidates/     all files of a folder
  selftrain rank runs/demo --prompt p.txt a.py b.py --mean-logprobs -0.4 -0.2
                                                          with log-probabilities that you have
  selftrain rank runs/demo --batch in.jsonl out.jsonl     many problems, with progress; killed, the same command goes on
  generate | selftrain rank runs/demo --batch - -         the same from standard input, a line as it comes

a line of in.jsonl and of out.jsonl:
  {"id": 7, "prompt": "def double(n):\\n", "candidates": ["    return n\\n", "    return 2 * n\\n"], "language": "py",
   "mean_logprobs": [-0.4, -0.2]}
  {"line": 1, "sha256": "...", "by": "rm-2", "reranker": "...", "id": 7, "best": 1, "pick": "    return 2 * n\\n", "scores": [-0.3, 1.2]}"""


@dataclass(frozen=True)
class Line:
    """A line of the input. `error`: why it cannot be ranked; empty where it can."""

    number: int
    digest: str
    id: Any = None
    prompt: str = ""
    candidates: tuple[str, ...] = ()
    language: str | None = None
    mean_logprobs: tuple[float, ...] | None = None
    error: str = ""


def batch_command(options: argparse.Namespace) -> int:
    """`selftrain rank --batch`."""
    from selftrain.rerank.ranker import identity, load_ranker

    source, target = options.batch
    if options.prompt or options.candidates or options.mean_logprobs or options.example is not None:
        raise UsageError(
            "--batch has its own prompts, candidates and log-probabilities: leave out --prompt, --example, --mean-logprobs and CANDIDATE"
        )
    check_files(source, target, "`prompt` and `candidates`")
    if target != "-" and not Path(source).is_file():
        raise UsageError(
            f"--batch {source} OUT: a batch from standard input or a pipe cannot go on; expected IN OUT, or {source} - > OUT"
        )
    ranker = load_ranker(options.run, options.by)
    by = getattr(ranker, "way", Path(options.run).resolve().name)
    maker = {"by": by, "reranker": identity(ranker)}
    if target == "-":
        return rank_stream(ranker, maker, source)
    return rank_file(ranker, maker, source, target)


def candidate_files(names: Sequence[str], prompt: str | None) -> list[str]:
    """The files that CANDIDATE arguments name: a folder stands for its files, by name, without hidden ones and the prompt's."""
    found: list[str] = []
    for name in names:
        folder = Path(name)
        if not folder.is_dir():
            found.append(name)
            continue
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."]
        files = [path for path in files if prompt is None or path.resolve() != Path(prompt).resolve()]
        if not files:
            raise UsageError(
                f"{name}: the folder holds no candidates; expected files with completions of the prompt"
            )
        found += map(str, files)
    return found


def rank_file(ranker: Any, maker: Mapping[str, str], source: str, target: str) -> int:
    """Rank the lines of file `source` into file `target`, after those that it holds already; returns the exit code.

    ranker  a `Picker` or a `Reranker`
    maker   the fields `by` and `reranker` of each line of the output

    Raises UsageError where a file cannot be read or written, or `target` is the result of other lines or of another ranker.
    """
    before, far = go_on(source, target, maker, every=True), 0
    bad = before.bad
    progress = Progress(sys.stderr)
    with reading(source, target) as lines, open(target, "ab", buffering=0) as out:
        lines.seek(before.offset)
        for row in rank_lines(ranker, maker, read_lines(lines, source, before.done), WINDOW):
            out.write(encoded(row))
            bad += _told(source, row)
            far += row.get("far", False)
            progress(row["line"], before.total, "lines")
    print(
        f"selftrain: {count_of(before.total, 'line')} ranked by {maker['by']}, {bad} of them could not be",
        file=sys.stderr,
    )
    if far:
        print(
            f"selftrain: {far} of the lines ranked now are unlike what {maker['by']} was trained on (`far`): "
            "do not rely on their order",
            file=sys.stderr,
        )
    return 1 if bad else 0


def rank_stream(ranker: Any, maker: Mapping[str, str], source: str) -> int:
    """Rank the lines of `source` (- is standard input, each line as it comes) to standard output; returns the exit code."""
    name, window = ("line", 1) if source == "-" else (source, WINDOW)
    bad = 0
    with reading(source, "standard output") as lines:
        for row in rank_lines(ranker, maker, read_lines(lines, name, 0), window):
            sys.stdout.buffer.write(encoded(row))
            sys.stdout.buffer.flush()
            bad += _told(source, row)
    return 1 if bad else 0


def rank_lines(
    ranker: Any, maker: Mapping[str, str], lines: Iterable[Line], window: int
) -> Iterator[dict[str, Any]]:
    """The output row of each line, in order; `window` lines are scored together."""
    lines = iter(lines)
    while several := list(islice(lines, window)):
        rankings = iter(_rankings(ranker, [line for line in several if not line.error]))
        for line in several:
            found: Any = line.error or next(rankings)
            yield {"line": line.number, "sha256": line.digest, **maker} | _answer(line, found)


def _answer(line: Line, found: Any) -> dict[str, Any]:
    """The fields that answer a line, of its ranking or of why it has none."""
    head = {} if line.id is None else {"id": line.id}
    if isinstance(found, str):
        return head | {"error": found}
    doubts = {name: getattr(found, name, None) for name in ("far", "close")}
    known = {name: value for name, value in doubts.items() if value is not None}
    return (
        head | {"best": found.best, "pick": line.candidates[found.best], "scores": list(found.scores)} | known
    )


def _rankings(ranker: Any, lines: Sequence[Line]) -> Iterator[Any]:
    """For each line its ranking, or why it has none, as text."""
    from selftrain.rerank.ranker import rank_many
    from selftrain.rerank.reranker import checked

    asked = [(line.prompt, line.candidates, line.language) for line in lines]
    given = [line.mean_logprobs for line in lines]
    # An error is that of one of the lines: they are then ranked one by one, to see which.
    with suppress(UsageError, SandboxUsageError):
        rankings = [checked(ranking) for ranking in rank_many(ranker, asked, given)]
        yield from rankings
        return
    for one, logprobs in zip(asked, given, strict=True):
        try:
            [ranking] = rank_many(ranker, [one], [logprobs])
            yield checked(ranking)
        except (UsageError, SandboxUsageError) as error:
            yield " ".join(str(error).split())


def read_lines(file: IO[bytes], name: str, done: int) -> Iterator[Line]:
    """The lines that `file` has left, after `done` others; blank lines are left out."""
    return map(_line, read_rows(file, name, done))


def _line(given: Row) -> Line:
    from selftrain.rerank.picker import check_logprobs

    number, digest, row = given.number, given.sha256, given.fields
    if given.wrong:
        return Line(number, digest, error=given.wrong)
    id, prompt, language, logprobs = (row.get(key) for key in ("id", "prompt", "language", "mean_logprobs"))
    candidates = row.get("candidates", row.get("completions"))
    wrong = ""
    missing = "" if "prompt" in row else "prompt"
    if missing or not row.keys() & {"candidates", "completions"}:
        wrong = f"field `{missing or 'candidates'}` is missing; found: {', '.join(row) or 'nothing'}"
    elif not isinstance(prompt, str):
        wrong = "`prompt`: expected a text"
    elif (
        not isinstance(candidates, list) or not candidates or not all(isinstance(c, str) for c in candidates)
    ):
        wrong = "`candidates`: expected a list of at least one text"
    elif language is not None and not isinstance(language, str):
        wrong = "`language`: expected a text"
    elif logprobs is not None:
        try:
            check_logprobs(logprobs, len(candidates))
        except UsageError as error:
            wrong = str(error)
    if wrong:
        return Line(number, digest, id, error=wrong)
    known = None if logprobs is None else tuple(logprobs)
    return Line(number, digest, id, str(prompt), tuple(candidates or ()), language, known)


def _told(source: str, row: dict[str, Any]) -> int:
    """Print the error of a row, if it has one; returns the number of errors."""
    if wrong := row.get("error"):
        tell(source, row["line"], wrong)
    return int(bool(wrong))
