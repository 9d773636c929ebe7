"""The commands `selftrain generate` and `selftrain best-of`: programs of any causal model, and the best of n of them."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, Any

from flows.lines import Before, Row, check_files, encoded, go_on, read_rows, read_text, reading, tell
from flows.options import add_command, add_number, add_sandbox, offline, runtime_of
from flows.progress import Progress
from selftrain.errors import UsageError
from selftrain.units import count_of, visible

GENERATE_EXAMPLES = """\
examples:
  selftrain generate runs/demo --prompt p.txt --n 4                        four completions of one prompt
  selftrain generate runs/demo problems.jsonl --out written.jsonl          of many prompts, one JSON object a line; killed, the
                                                                           same command goes on
  selftrain evaluate written.jsonl --reranker runs/demo                    ... if they have tests: how good is the pick?
  selftrain rank runs/demo --batch written.jsonl picks.jsonl               ... or only the picks
  selftrain generate qwen2.5-coder --base-url http://127.0.0.1:11434/v1 --prompt p.txt --language py
                                                                           a model behind an OpenAI-compatible server

A row of the input has `prompt` and, if they are known, `language` and `stop_tokens`; all its fields are kept. The output adds
`completions`, `finish_reasons` and, where the model gives them, `mean_logprobs` (nats per token); and `generated`, which says from which
line, by which model and with which settings: the same command again tries the rows that are not there, and adds them at the end."""

BEST_EXAMPLES = """\
examples:
  selftrain best-of runs/demo --prompt p.txt --n 8                         the run's generator and its own way to pick
  selftrain best-of runs/demo --prompt p.txt --filter compile --language py
                                                                           only among those that compile (in the sandbox)
  selftrain best-of MODEL --base-url http://127.0.0.1:8000/v1 --reranker runs/demo --prompt p.txt --language py --json

The pick is printed to standard output, what is known about it to standard error; --json prints all candidates."""


def add_commands(commands: Any) -> None:
    """Add `selftrain generate` and `best-of`."""
    about = "write completions of prompts with any causal model, as JSON lines"
    generate = add_command(commands, "generate", generate_command, about, examples=GENERATE_EXAMPLES)
    _add_generator(generate)
    generate.add_argument(
        "rows", nargs="?", metavar="IN", help="JSON lines with `prompt`; - is standard input"
    )
    generate.add_argument("--prompt", metavar="FILE", help="file with one prompt, in place of IN")
    generate.add_argument(
        "--out",
        metavar="OUT",
        help="file to write (default: standard output); one that was killed goes on with the same IN",
    )

    about = "write n programs, drop those that do not compile or fail the prompt's examples, pick the best"
    best = add_command(commands, "best-of", best_command, about, examples=BEST_EXAMPLES)
    _add_generator(best)
    best.add_argument("--prompt", required=True, metavar="FILE", help="file with the prompt")
    best.add_argument(
        "--reranker",
        metavar="RUN",
        help="a run, champion, or a reranker's folder, URL or hub id, that picks (default: the generator's run)",
    )
    best.add_argument(
        "--filter", choices=("compile", "examples"), help="keep those that compile, or pass the examples"
    )
    best.add_argument("--tests", metavar="FILE", help="the problem's tests, whose form a filter may need")
    best.add_argument("--json", action="store_true", help="print JSON")
    add_sandbox(best)


def _add_generator(command: argparse.ArgumentParser) -> None:
    """The options that name a generator, and how it samples."""
    command.add_argument(
        "generator",
        help="a run, champion, or a model's folder, URL or hub id; with --base-url the model's name there",
    )
    command.add_argument(
        "--base-url", metavar="URL", help="an OpenAI-compatible server, such as http://127.0.0.1:8000/v1"
    )
    command.add_argument("--tokenizer", metavar="FOLDER", help="the served model's tokenizer, to send tokens")
    command.add_argument("--chat", action="store_true", help="ask the server a question (/chat/completions)")
    command.add_argument("--policy", default="sft", help="policy of a run: sft, ppo-N or last (default: sft)")
    command.add_argument(
        "--engine", default="hf", choices=("hf", "ctranslate2"), help="of a local model (default: hf)"
    )
    command.add_argument(
        "--compute-type",
        default="float32",
        choices=("float32", "bfloat16", "int8"),
        help="arithmetic of a local model: bfloat16 (hf) is faster where the processor has it, int8 is ctranslate2's (default: float32)",
    )
    add_number(command, "--n", 16, None, "completions of each prompt")
    add_number(command, "--temperature", 0.8, "T", "0: greedy, with --n 1")
    add_number(command, "--top-p", 1.0, "P", "mass of nucleus sampling")
    add_number(command, "--max-new-tokens", 256, "N", "longest completion, tokens")
    add_number(command, "--seed", 0, None)
    command.add_argument(
        "--language", metavar="NAME", help="language of the programs; a chat model and a filter need it"
    )


def _generator(options: argparse.Namespace) -> Any:
    generator = None if options.base_url else options.generator
    offline(generator, options.tokenizer, getattr(options, "reranker", None))
    from selftrain.generate.generator import Generator

    return Generator.load(
        options.generator,
        base_url=options.base_url,
        tokenizer=options.tokenizer,
        chat=options.chat,
        policy=options.policy,
        engine=options.engine,
        compute_type=options.compute_type,
    )


def _sampling(options: argparse.Namespace) -> dict[str, Any]:
    names = ("temperature", "max_new_tokens", "top_p", "seed")
    return {name: getattr(options, name) for name in names}


def generate_command(options: argparse.Namespace) -> int:
    """`selftrain generate`; exit code 1 if a row could not be used."""
    if (options.rows is None) == (options.prompt is None):
        raise UsageError("expected either IN, JSON lines with `prompt`, or --prompt FILE")
    source, out = options.rows, options.out
    one = read_text(options.prompt) if options.prompt is not None else None
    check_files(source, out, "`prompt`")
    # A pipe can be read only once.
    goes_on = source not in (None, "-") and Path(source).is_file()
    if out is not None and not goes_on and Path(out).exists() and Path(out).stat().st_size:
        raise UsageError(
            f"{out} exists, and only with a file of rows it can go on; name another file, or remove it"
        )
    generator = _generator(options)
    if one is not None:
        [written] = _written([{"prompt": one}], generator, options)
        if isinstance(written, str):
            raise UsageError(written)
        with _output(out) as file:
            file.write(encoded({"prompt": one} | written))
        return 0
    maker = _maker(generator, options)
    before = (
        go_on(source, out, maker, lambda row: row.get("generated"))
        if goes_on and out is not None
        else Before(0)
    )
    # Who writes rows into a pipe may wait for the answers.
    together = generator.together(options.n) if goes_on else 1
    return _generate(generator, options, maker, before, together)


def _generate(
    generator: Any, options: argparse.Namespace, maker: dict[str, Any], before: Before, together: int
) -> int:
    """Answer the rows that are not answered yet, `together` of them at once."""
    source = options.rows
    show, bad = Progress(sys.stderr), 0
    with reading(source, options.out or "standard output") as lines, _output(options.out) as out:
        rows = _unanswered(lines, "line" if source == "-" else source, before)
        for row, written in _answered(rows, generator, options, together):
            if isinstance(written, str):
                tell(source, row.number, written)
                bad += 1
            else:
                stamp = {"line": row.number, "sha256": row.sha256} | maker
                out.write(encoded(row.fields | written | {"generated": stamp}))
                out.flush()
            again = row.number <= before.done
            show(row.number, before.done if again else before.total, "lines again" if again else "lines")
    if bad:
        print(f"selftrain: {count_of(bad, 'row')} could not be used", file=sys.stderr)
    return 1 if bad else 0


def _unanswered(lines: IO[bytes], name: str, before: Before) -> Iterator[Row]:
    """The rows that could not be used before, which may be corrected now, and those behind the last answered one."""
    for number, offset in before.open:
        lines.seek(offset)
        yield next(read_rows(lines, name, number - 1))
    if before.done:
        lines.seek(before.offset)
    yield from read_rows(lines, name, before.done)


Written = dict[str, Any] | str
"""What the generator adds to a row; a text where the row cannot be used, which says why."""


def _answered(
    rows: Iterator[Row], generator: Any, options: argparse.Namespace, together: int
) -> Iterator[tuple[Row, Written]]:
    """Each row with what the generator adds to it, or why it cannot be used. `together`: rows that are answered at once."""
    while block := list(islice(rows, together)):
        fine = [row for row in block if not row.wrong]
        answers = iter(_written([row.fields for row in fine], generator, options))
        for row in block:
            yield row, row.wrong or next(answers)


def _maker(generator: Any, options: argparse.Namespace) -> dict[str, Any]:
    """What decides the completions: the model (first digits of a digest of its files, or its name on a server, with the server's
    address and the tokenizer that prompts are sent with) and how it samples."""
    from selftrain.models.weights import checkpoint_digest

    if generator.folder is not None:
        model = {"model": checkpoint_digest(generator.folder)[:12]}
    else:
        tokens = generator.tokenizer and checkpoint_digest(generator.tokenizer)[:12]
        model = {"model": options.generator, "base_url": options.base_url.rstrip("/"), "tokenizer": tokens}
    how = {name: getattr(options, name) for name in ("n", "language", "engine", "compute_type", "chat")}
    return {**model, **how, **_sampling(options)}


def _output(name: str | None) -> AbstractContextManager[IO[bytes]]:
    """Standard output, or the end of the file `name`."""
    if name is None:
        return nullcontext(sys.stdout.buffer)
    try:
        return open(name, "ab", buffering=0)
    except OSError as error:
        raise UsageError(f"{name}: cannot be written: {error.strerror}") from error


def _written(rows: Sequence[dict[str, Any]], generator: Any, options: argparse.Namespace) -> list[Written]:
    """What the generator adds to each row."""
    from sandbox.errors import SandboxError

    wrong = [_wrong(row) for row in rows]
    asked = [
        (row["prompt"], row.get("language") or options.language, row.get("stop_tokens"))
        for row, why in zip(rows, wrong, strict=True)
        if not why
    ]
    try:
        found = iter(generator.sample_many(asked, options.n, **_sampling(options)) if asked else ())
    except (UsageError, SandboxError) as error:
        if len(rows) == 1:
            return [" ".join(str(error).split())]
        return [written for row in rows for written in _written([row], generator, options)]
    return [why or _fields(next(found)) for why in wrong]


def _wrong(row: dict[str, Any]) -> str:
    """Why a row cannot be used, as far as it says itself; empty if it can."""
    prompt, stop, language = (row.get(name) for name in ("prompt", "stop_tokens", "language"))
    if not isinstance(prompt, str):
        return "`prompt`: expected a text"
    if stop is not None and not (
        isinstance(stop, list) and all(isinstance(text, str) and text for text in stop)
    ):
        return "`stop_tokens`: expected a list of texts"
    if language is not None and not isinstance(language, str):
        return "`language`: expected a text"
    return ""


def _fields(found: Sequence[Any]) -> dict[str, Any]:
    """The fields of the completions."""
    written: dict[str, Any] = {"completions": [one.text for one in found]}
    if all(one.mean_logprob is not None for one in found):
        written["mean_logprobs"] = [one.mean_logprob for one in found]
    return written | {"finish_reasons": [one.finish_reason for one in found]}


def best_command(options: argparse.Namespace) -> int:
    """`selftrain best-of`."""
    runtime = runtime_of(options)
    prompt = read_text(options.prompt)
    tests = read_text(options.tests) if options.tests else ""
    place = options.reranker or options.generator
    if options.reranker is None and options.base_url is not None:
        raise UsageError("a served model has no reranker: give --reranker, a run or a reranker's folder")
    generator = _generator(options)
    from selftrain.generate.best_of import best_of_n
    from selftrain.rerank.ranker import load_ranker
    from tasks.sandbox import open_sandbox

    reranker = load_ranker(place)
    with open_sandbox(runtime) if options.filter else nullcontext() as sandbox:
        found = best_of_n(
            generator,
            reranker,
            prompt,
            n=options.n,
            filter=options.filter,
            sandbox=sandbox,
            language=options.language,
            tests=tests,
            **_sampling(options),
        )
    if options.json:
        print(encoded(_as_json(found)).decode(), end="")
        return 0
    # A file or a pipe gets the program as it is.
    pick = visible(found.pick) if sys.stdout.isatty() else found.pick
    sys.stdout.buffer.write(f"{pick.removesuffix(chr(10))}\n".encode())
    sys.stdout.flush()
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in found.seconds.items())
    passing = f", {_passing(found)} pass the filter" if found.verdicts else ""
    print(
        f"selftrain: candidate {found.best + 1} of {len(found.candidates)}{passing}, score {found.scores[found.best]:.4f}; {seconds}",
        file=sys.stderr,
    )
    return 0


def _passing(found: Any) -> str:
    from collections import Counter

    counts = Counter(map(str, found.verdicts))
    named = ", ".join(f"{verdict} {count}" for verdict, count in counts.most_common())
    return f"{'none' if found.none_passed else 'some'} ({named})"


def _as_json(found: Any) -> dict[str, Any]:
    rows = []
    for at, one in enumerate(found.candidates):
        row = vars(one) | {"score": found.scores[at]}
        rows.append(row | ({"verdict": str(found.verdicts[at])} if found.verdicts else {}))
    return {
        "pick": found.pick,
        "best": found.best,
        "none_passed": found.none_passed,
        "seconds": dict(found.seconds),
        "candidates": rows,
    }
