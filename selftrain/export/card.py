"""Writes the model card (README.md, with the hub's front matter) and selftrain.json of an exported reranker."""

from collections.abc import Mapping
from typing import Any

from sandbox.languages import LANGUAGES
from selftrain.evaluation.comparisons import best_untrained, untrained
from selftrain.evaluation.metrics import Estimate, Metrics
from selftrain.evaluation.pools import AGREEMENT, WITH_LOGPROB
from selftrain.export.checkpoint import Exact
from selftrain.export.source import Source
from selftrain.units import count_of

TITLES = {
    "random": "at random",
    "greedy": "the generator's greedy completion",
    "logprob": "highest mean log-probability per token under the generator",
    "logprob_sum": "highest log-probability of the whole program",
    "majority": "the program written most often",
    "examples": "passes most of the prompt's own examples",
    AGREEMENT: "outputs on which most programs agree",
    "oracle": "oracle: at least one candidate passes",
}
"""Ranking rules without training -> how the table calls them."""
PROBLEMS = {
    "bank": "the built-in problem bank of `selftrain` (generated exercises, which say nothing about real-world code)",
    "multipl-e": "problems in MultiPL-E's format",
    "contests": "contest problems in CodeContests' format",
    "jsonl": "problems of the user's own",
}
"""Source of problems -> how the card calls it."""
OTHER = "other"
"""The hub's name of a licence that is not in its list."""


def facts(source: Source, exact: Exact) -> dict[str, Any]:
    """The content of selftrain.json: which number the evaluation gives for the folder alone, and which with log-probability."""
    rankers = source.pool["overall"]["rankers"]
    with_logprob, best = source.ranker + WITH_LOGPROB, best_untrained(source.pool["overall"])
    return {
        "format": 1,
        "run": source.name,
        "reranker": str(source.reranker),
        "ranker": source.ranker,
        "way": source.way,
        "logprob_weight": source.logprob_weight,
        "problems": source.pool["overall"]["problems"],
        "candidates": source.pool["overall"]["samples"],
        "solved": {
            "alone": _values(rankers[source.ranker]),
            "with_logprob": _values(rankers[with_logprob]),
            "best_untrained": _values(untrained(source.pool["overall"])[best]),
        },
        "best_untrained": best,
        "exact": {"chat_template": exact.template, "text_pair": exact.pair},
    }


def model_card(source: Source, exact: Exact, repo: str, licence: str | None) -> str:
    """The card as Markdown with front matter.

    repo     where the examples load the model from: an id on the hub or a folder
    licence  the hub's name of the licence; None: Apache 2.0 without a pretrained model, else `other`
    """
    licence = licence or (OTHER if source.base else "apache-2.0")
    parts = [
        f"---\n{_front_matter(source, licence)}\n---",
        f"# {source.name}: a reranker for generated code",
        _summary(source),
        "## How often its pick is right",
        _table(source),
        _reading(source),
        "## Use",
        _use(exact, repo),
        "## Training",
        _training(source),
        "## Limits",
        LIMITS,
        "## Licence",
        _licence(source, licence),
    ]
    return "\n\n".join(parts) + "\n"


LIMITS = """\
- Scores compare candidates of one prompt. They are no probabilities, and scores of different prompts do not compare.
- The figures hold for candidates of the run's own generator. Texts unlike these (other languages, whole programs in place of
  completions, prose) get scores that mean little.
- A high score is no verdict: run the tests that you have. A policy that is trained against this model finds its mistakes.
- The intervals are 95 % bootstrap intervals over problems; the variance between training seeds is not in them."""


def _ways(metrics: Metrics) -> dict[str, Estimate]:
    """Ranking rule -> its estimate, without those that the evaluation, which may be an older one, does not have."""
    found: dict[str, Any] = {**metrics, **metrics["rankers"]}
    return {way: found[way] for way in (*TITLES, *metrics["rankers"]) if found.get(way)}


def _values(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate["value"], "low": estimate["low"], "high": estimate["high"]}


def _front_matter(source: Source, licence: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    overall, rankers = source.pool["overall"], source.pool["overall"]["rankers"]
    names = {source.ranker: "score alone", source.ranker + WITH_LOGPROB: "score and log-probability"}
    data = ModelCardData(
        base_model=source.hub_base,
        library_name="transformers",
        license=licence,
        pipeline_tag="text-classification",
        tags=["reranker", "reward-model", "code", "selftrain", *source.pool["languages"]],
        model_name=source.name,
        eval_results=[
            EvalResult(
                task_type="text-classification",
                task_name="picking one of several programs",
                dataset_type=source.config["problems"]["source"],
                dataset_name=f"test problems of {source.name}",
                dataset_split="test",
                metric_type="accuracy",
                metric_name=f"picked program passes, best of {overall['samples']}, {title}",
                metric_value=round(rankers[way]["value"], 4),
            )
            for way, title in names.items()
        ],
    )
    return str(data.to_yaml())


def _summary(source: Source) -> str:
    return (
        "This model reads a prompt and a program that continues it, and gives a score: of several programs for one prompt, the one "
        "with the highest score is the one to keep. It is a sequence classifier with one label, trained by iterative self-training "
        "(`selftrain`, after [arXiv 2504.09643](https://arxiv.org/abs/2504.09643)) on programs that a sandbox ran against tests."
    )


def _table(source: Source) -> str:
    """A row per ranking rule; a column over all test problems, and one per language."""
    with_logprob = source.ranker + WITH_LOGPROB
    titles = {
        **{way: title for way, title in TITLES.items() if way != "oracle"},
        source.ranker: "**this model: highest score**",
        with_logprob: f"**score + {source.logprob_weight:.3g} × mean log-probability per token under the generator**",
        "oracle": TITLES["oracle"],
    }
    columns = {"all": source.pool["overall"]} | {
        LANGUAGES[name].title if name in LANGUAGES else name: metrics
        for name, metrics in source.pool["languages"].items()
    }
    if len(columns) == 2:
        del columns["all"]
    found = {name: _ways(metrics) for name, metrics in columns.items()}
    rows = [
        f"| {title} | " + " | ".join(_cell(found[name].get(way)) for name in columns) + " |"
        for way, title in titles.items()
        if any(found[name].get(way) for name in columns)
    ]
    heads = [f"{name} ({count_of(metrics['problems'], 'problem')})" for name, metrics in columns.items()]
    head = f"| how one of {_samples(columns)} candidates is picked | " + " | ".join(heads) + " |"
    return "\n".join([head, "|---" * (len(columns) + 1) + "|", *rows])


def _samples(columns: Mapping[str, Metrics]) -> int:
    return min(metrics["samples"] for metrics in columns.values())


def _cell(estimate: Estimate | None) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]" if estimate else ""


def _reading(source: Source) -> str:
    """What the table says of the best untrained rule, and which row holds for what a user has."""
    best = best_untrained(source.pool["overall"])
    lines = [
        "Share of test problems whose picked program passes all its tests, with 95 % intervals. No stage trained on these problems."
    ]
    for way, title in ((source.ranker, "this model"), (source.ranker + WITH_LOGPROB, "with log-probability")):
        paired = source.difference(way, best)
        if paired is not None:
            lines.append(
                f"- {title} minus the best rule without training ({TITLES[best]}), paired by problem: {paired['value']:+.3f} "
                f"[{paired['low']:+.3f}, {paired['high']:+.3f}]"
            )
    if len(lines) == 1:
        lines.append(
            f"- The best rule without training: {TITLES[best]}. The run has no paired interval for it."
        )
    chosen = "the score alone" if source.way == source.ranker else "score and log-probability together"
    lines.append(
        "- **Which row holds:** this folder alone gives the row *highest score*. The row with log-probability needs the run's "
        "generator, which is not in this folder, or the mean log-probability per token that your own generator reports. On the "
        f"validation problems, {chosen} did better; rule and weight are in `selftrain.json`."
    )
    return "\n".join([lines[0], "", *lines[1:]])


def _use(exact: Exact, repo: str) -> str:
    pair = (
        f"""\
With transformers alone, as a pair of texts; the result is the score:

    from transformers import pipeline
    scorer = pipeline("text-classification", model="{repo}")
    scorer([{{"text": prompt, "text_pair": completion}}])

sentence-transformers' `CrossEncoder` and `vllm serve {repo} --runner pooling` (`/score`, `/rerank`) read such pairs too."""
        if exact.pair
        else "This tokenizer puts a blank before the second of two texts: do not score pairs of texts, use the chat template."
    )
    chat = (
        "The chat template takes the prompt as the user's message and the completion as the assistant's, and writes the start "
        "token, if there is one: tokenize its text with `add_special_tokens=False`. So reads TRL, with messages as data:\n\n"
        f'    GRPOTrainer(model=..., reward_funcs="{repo}", ...)\n\n'
        "With data that are plain strings TRL adds neither separator nor end token, and the scores are others."
        if exact.template
        else "The chat template does not give this model's own token ids: use `selftrain`."
    )
    return f"""\
With `selftrain`:

    from selftrain import Reranker
    ranking = Reranker.load("{repo}").rank(prompt, candidates)
    best = candidates[ranking.best]

A candidate is a *completion*: the text that follows the prompt, as the generator wrote it, up to its stop text. `selftrain` also
takes whole programs and answers in markdown, and `selftrain serve {repo}` offers it over HTTP. What follows reads texts as they are: give it the completion alone, without blanks and
line breaks at its end, and the prompt with its last line break. Empty completions have no score.

{pair}

{chat}"""


def _training(source: Source) -> str:
    problems = source.config["problems"]
    languages = ", ".join(
        LANGUAGES[name].title if name in LANGUAGES else name for name in source.pool["languages"]
    )
    counted = {split: source.problems.get(split, 0) for split in ("sft", "rl", "validation", "test")}
    lines = [
        f"- Base model: {'[' + source.hub_base + '](https://huggingface.co/' + source.hub_base + ')' if source.hub_base else source.base or 'a tiny model with random weights'}",
        f"- Problems: {PROBLEMS.get(problems['source'], problems['source'])}, in {languages}: {counted['sft']} with answers for the "
        f"generator, {counted['rl']} with tests for the pairs, {counted['validation']} for choices, {counted['test']} for the table",
        f"- Reranker `{source.ranker}`, artifact `{source.reranker}`, of a run of {count_of(source.config['rounds'], 'round')}, seed "
        f"{source.config['seed']}",
        f"- Loss: pairwise, on {source.trained.get('pairs', '?')} pairs of a passing and a failing program of "
        "one problem in the last round",
    ]
    return "\n".join(lines)


def _licence(source: Source, licence: str) -> str:
    if licence == OTHER:
        return f"That of the base model, {source.base}: look at it before you use or share this model."
    return f"{licence}." + (
        f" The licence of the base model, {source.base}, holds too." if source.base else ""
    )
