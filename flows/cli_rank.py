"""The command `selftrain rank`: scores completions of a prompt and picks the best."""

import argparse
import gc
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from flows import cli_batch
from flows.lines import read_text
from flows.options import add_command, offline
from selftrain.errors import UsageError
from selftrain.units import visible


class Instead(argparse.Action):
    """An option that replaces the required arguments `others`: if the option is given, they become optional."""

    def __init__(self, *args: Any, others: Sequence[argparse.Action] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.others = others

    def __call__(self, _: Any, namespace: argparse.Namespace, value: Any, option: Any = None) -> None:
        """Store the value and make the others optional."""
        setattr(namespace, self.dest, value)
        for other in self.others:
            other.required = False


def add_rank(commands: Any) -> None:
    """Add `selftrain rank`."""
    rank = add_command(
        commands,
        "rank",
        rank_command,
        "score completions of a prompt and pick the best",
        "Ranks completions of a prompt in the way that the run's validation chose: by the score of its last reranker, "
        "or by that and the log-probability under its generator. Warns if the texts are unlike the training data of both.",
        cli_batch.EXAMPLES,
    )
    rank.add_argument(
        "run",
        help="a run's folder, or its name in runs/; or champion[:NAME][@STORE]; or a reranker's folder: its score alone",
    )
    prompt = rank.add_argument("--prompt", required=True, metavar="FILE", help="file with the prompt")
    candidates = rank.add_argument(
        "candidates",
        nargs="+",
        metavar="CANDIDATE",
        help="files with completions of the prompt; a folder stands for its files",
    )
    rank.add_argument(
        "--by", metavar="WAY", help="another way to rank: rm-2 is the reranker alone, rm-2+logprob both"
    )
    # The parser takes for a number what begins as one, so that -1e-05 and -inf are none of its options.
    rank._negative_number_matcher = re.compile(r"-(\d|\.\d|inf|nan)")
    rank.add_argument(
        "--mean-logprobs",
        nargs="+",
        type=float,
        metavar="NUMBER",
        help="mean log-probability per token of each candidate under the run's generator, nats, in the order of the candidates "
        "(files of a folder: by name); the generator is then not loaded",
    )
    rank.add_argument(
        "--language",
        metavar="NAME",
        help="language of the programs; needed where the run has several and its generator is a chat model",
    )
    rank.add_argument(
        "--example",
        nargs="?",
        const="",
        metavar="PROBLEM",
        action=Instead,
        others=(prompt, candidates),
        help="rank the programs of a test problem of the run and print their verdicts (default: the first problem that some "
        "programs solve and some do not)",
    )
    rank.add_argument(
        "--batch",
        nargs=2,
        metavar=("IN", "OUT"),
        action=Instead,
        others=(prompt, candidates),
        help='rank many problems, one JSON object a line, {"prompt", "candidates"}, into a line of OUT each; a batch that was '
        "killed goes on; - is standard input and output",
    )
    rank.add_argument("--json", action="store_true", help="print JSON")


def rank_command(options: argparse.Namespace) -> int:
    """`selftrain rank`."""
    gc.disable()  # imports create no garbage, and the collector would take a fifth of the start-up time
    offline(options.run)
    if options.example is not None and (options.prompt or options.candidates or options.mean_logprobs):
        raise UsageError(
            "expected either --example, which has its own prompt and candidates, or --prompt and CANDIDATE; got both"
        )
    if options.batch is not None:
        return cli_batch.batch_command(options)
    from selftrain.rerank.example import example
    from selftrain.rerank.picker import Picked, Picker, check_logprobs
    from selftrain.rerank.ranker import load_ranker

    verdicts: Sequence[str] = ()
    given: dict[str, Any] = {"mean_logprobs": options.mean_logprobs}
    language = options.language
    if options.example is None:
        prompt = read_text(options.prompt)
        names = cli_batch.candidate_files(options.candidates, options.prompt)
        texts = [read_text(name) for name in names]
        if options.mean_logprobs is not None:
            check_logprobs(options.mean_logprobs, len(texts))
    else:
        found = example(options.run, options.example)
        prompt, texts, verdicts = found.prompt, list(found.candidates), found.verdicts
        language = found.language
        given = {"mean_logprobs": found.logprobs, "exact": True}  # as the run evaluated them
        names = [f"program {number}" for number in range(1, len(texts) + 1)]
    ranker = load_ranker(options.run, options.by)
    picker = ranker if isinstance(ranker, Picker) else None
    if picker is not None:
        picked = picker.rank(prompt, texts, language, **given)
    elif options.mean_logprobs is not None:
        raise UsageError(
            f"{options.run} is a reranker by itself, which ranks by its score; leave out --mean-logprobs"
        )
    else:
        ranking = ranker.rank(prompt, texts, language)
        picked = Picked(ranking.scores, refused=ranking.refused)
    if options.json:
        print(json.dumps(_ranked(picker, picked, names, verdicts), indent=1))
    else:
        if options.example is not None:
            print(f"{found.id}\n\n{visible(prompt)}")
        for place, at in enumerate(picked.order):
            verdict = f"  {verdicts[at]:<16}" if verdicts else ""
            score = "-" if at in picked.refused else f"{picked.scores[at]:.4f}"
            print(f"{score:>9}{verdict}  {visible(names[at])}{'   <- pick' if place == 0 else ''}")
            if verdicts:
                print("".join(f"           | {line}\n" for line in visible(texts[at].rstrip()).split("\n")))
    for line in _remarks(options, picker, picked, names):
        print(f"selftrain: {line}", file=sys.stderr)
    return 0


def _remarks(options: argparse.Namespace, picker: Any, picked: Any, names: Sequence[str]) -> Iterator[str]:
    """What a user should know about a ranking, in lines."""
    for at, reason in picked.refused.items():
        yield f"{visible(names[at])} is ranked last: {reason}"
    if picker is None:
        return
    yield f"by {picker.way}: {picker.description}"
    yield picker.solved
    if picked.close:
        yield picked.close_doubt
    if picked.far:
        yield f"{picker.far_doubt(picked)}; `selftrain rank {options.run} --example` ranks a test problem of the run"


def _ranked(picker: Any, picked: Any, names: Sequence[str], verdicts: Sequence[str]) -> dict[str, Any]:
    """A ranking as JSON values."""
    rows: list[dict[str, Any]] = [
        {"candidate": name, "score": None if at in picked.refused else score}
        for at, (name, score) in enumerate(zip(names, picked.scores, strict=True))
    ]
    for at, row in enumerate(rows):
        if picked.logprobs is not None:
            row["mean_logprob"] = picked.logprobs[at]
        if at in picked.refused:
            row["refused"] = picked.refused[at]
        if verdicts:
            row["verdict"] = verdicts[at]
    about = {}
    if picker is not None:
        about = {"by": picker.way, "far": picked.far, "chance": picked.chance, "close": picked.close}
    return {"pick": names[picked.best], **about, "candidates": rows}
