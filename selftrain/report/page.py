"""Renders report.html, one file that needs no network and no library.

The template is `assets/report.html`, with the style sheets and scripts of `assets` inlined. Jinja escapes all values except the
plots, style, script and data that this module inserts. Candidates are untrusted text, so a content security policy forbids
requests and all scripts but this one.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from selftrain.evaluation.calibration import Calibration, reliability
from selftrain.evaluation.comparisons import Comparison, Evaluation, Headline, best_untrained
from selftrain.evaluation.metrics import Metrics
from selftrain.evaluation.pools import AGREEMENT, SHUFFLED, WITH_LOGPROB, Pool
from selftrain.report import charts, numbers
from selftrain.report.answers import answers, explained
from selftrain.report.browse import browse_data, script_json
from selftrain.report.template import ASSETS, environment, page_style

CURVES = {
    "score": "Score of the reward model",
    "reward": "Reward: score minus KL penalty",
    "kl": "KL to the SFT policy, nats a token",
    "entropy": "Entropy, nats a token",
    "clip_fraction": "Share of tokens whose ratio was clipped",
    "explained_variance": "Share of the returns' variance that the value head explains",
    "frac_reward_zero_std": "Share of the prompts whose completions all have the same reward",
    "pass_rate": "Share of the completions that pass",
    "probe_pass_rate": "Share of the probe's completions that pass",
    "hacking_gap": "Reward-hacking gap: rise of the probe's score over that of its pass rate, in standard deviations",
}
"""Key of a PPO row -> title of its plot. A row may lack some of the keys."""


@dataclass(frozen=True)
class ReportInputs:
    """All data that a report shows.

    name             name of the run
    config           the resolved config, as JSON values
    problems         `source`, and numbers of problems: `train` (sft and rl), `validation`, `eval` (the test split)
    seconds          stage label (`sft`, `ppo-1`, ...) -> seconds that its artifact took to build, in running order
    pools            candidates for the test problems; `sft` is the first pool
    evaluation       result of `evaluate_pools` for these pools
    ppo              `ppo-1`, ... -> one row per PPO step: `step`, and any of the keys of `page.CURVES`
    pairs            round (`1`, ...) -> kind (easy, on_policy, hard_negative, random) -> number of pairs mined in that round
    chosen           the ranker chosen on the validation split; one of the pools' rankers
    logprob_weights  ranker R -> weight of R+logprob, chosen on the validation split
    headline         the chosen ranker, and its sibling with or without log-probability -> its gain over the best untrained way
    calibration      reranker -> how its scores become chances, and the error of these chances
    notes            sentences about the run's models and data, and about the limits of its results
    """

    name: str
    config: Mapping[str, object]
    problems: Mapping[str, str | int]
    seconds: Mapping[str, float]
    pools: Sequence[Pool]
    evaluation: Evaluation
    ppo: Mapping[str, Sequence[Mapping[str, float]]]
    pairs: Mapping[str, Mapping[str, int]]
    chosen: str
    logprob_weights: Mapping[str, float]
    headline: Mapping[str, Headline] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    notes: Sequence[str] = ()


def render(inputs: ReportInputs) -> str:
    """The HTML page. `build.finish_report` later fills in the line about the duration of the run."""
    templates = environment()
    filters = ("percent", "interval", "difference", "signed", "duration")
    templates.filters |= {name: getattr(numbers, name) for name in filters}
    script = "".join((ASSETS / name).read_text("utf-8") for name in ("text.js", "browse.js"))
    metrics = {name: pool["overall"] for name, pool in inputs.evaluation["pools"].items()}
    found = {row["name"]: row for row in inputs.evaluation["comparisons"]}
    base = metrics[inputs.pools[0].name]
    rival = best_untrained(base)
    browse = browse_data(inputs.pools, inputs.chosen, rival)
    return templates.get_template("report.html").render(
        inputs=inputs,
        style=page_style(),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        metrics=metrics,
        ways=charts.ways,
        colour=charts.colour,
        found=found,
        first=inputs.pools[0].name,
        answers=answers(inputs.pools[0], base, inputs.chosen, found),
        explained=explained,
        cards=list(dict.fromkeys(["random", rival, inputs.chosen, "oracle"])),
        rival=rival,
        shown=_shown_ways(base, inputs.chosen),
        curves_shown=_curves(base, inputs.chosen),
        picks={name: charts.pick_chart(name, each, inputs.chosen) for name, each in metrics.items()},
        best_of={
            name: charts.best_of_chart(name, each, _curves(each, inputs.chosen))
            for name, each in metrics.items()
        },
        languages=_language_charts(inputs),
        gains=_chart(_gains(found, inputs)),
        changes=_chart(_changes(found, inputs)),
        shifts=_chart(_shifts(found, inputs), shares=False),
        scores=_score_charts(inputs),
        curves=_curve_charts(inputs.ppo),
        pairs=charts.pairs_chart(inputs.pairs) if inputs.pairs else None,
        reliability=_reliability_charts(inputs),
        seconds=charts.seconds_chart(inputs.seconds),
        kinds=_seconds_by_kind(inputs.seconds),
        total=sum(inputs.seconds.values()),
        unjudged=sum(pool.unjudged for pool in inputs.pools),
        browse=browse,
        browse_json=script_json(browse),
        config=json.dumps(inputs.config, indent=2, ensure_ascii=False),
    )


def _shown_ways(metrics: Metrics, chosen: str) -> list[str]:
    return [way for way in ("random", "logprob", "majority", chosen) if way in charts.ways(metrics)]


def _curves(metrics: Metrics, chosen: str) -> list[str]:
    """The rules of the chart by number of candidates: the likeliest program, the last round's reranker, the chosen ranker."""
    rerankers = [name for name in metrics["rankers"] if not name.endswith((WITH_LOGPROB, AGREEMENT))]
    return list(dict.fromkeys(["logprob", *rerankers[-1:], chosen]))


def _language_charts(inputs: ReportInputs) -> dict[str, str]:
    pools = inputs.evaluation["pools"]
    return {
        name: charts.language_chart(name, pool, _shown_ways(pool["overall"], inputs.chosen))
        for name, pool in pools.items()
    }


def _score_charts(inputs: ReportInputs) -> list[tuple[str, str, str]]:
    """(reranker, pool, plot) for every reranker and pool, without controls and combinations."""
    rankers = [
        name for name in inputs.pools[0].rankers if not name.endswith((SHUFFLED, WITH_LOGPROB, AGREEMENT))
    ]
    return [
        (ranker, pool.name, charts.score_chart(pool, ranker))
        for ranker in rankers
        for pool in inputs.pools
        if ranker in pool.rankers
    ]


def _reliability_charts(inputs: ReportInputs) -> dict[str, str]:
    """Reranker -> plot of its chances on the first pool, before and after the fit."""
    pool = inputs.pools[0]
    plots = {}
    for ranker, fit in inputs.calibration.items():
        if ranker in pool.rankers:
            fitted = reliability(pool, ranker, fit["scale"], fit["offset"])
            bins = {"raw hollow": reliability(pool, ranker), "round-1": fitted}
            plots[ranker] = charts.reliability_chart(
                f"Chances of {ranker} and shares that pass, pool {pool.name}", bins
            )
    return plots


def _seconds_by_kind(seconds: Mapping[str, float]) -> dict[str, float]:
    """Kind of stage (the label up to the first dash: sample, execute, rm, ...) -> its seconds, the longest first."""
    kinds: dict[str, float] = {}
    for label, value in seconds.items():
        kind = label.partition("-")[0]
        kinds[kind] = kinds.get(kind, 0.0) + value
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def _curve_charts(ppo: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, str]:
    plots = {}
    for key, label in CURVES.items():
        curves = {name: [(row["step"], row[key]) for row in rows if key in row] for name, rows in ppo.items()}
        if curves := {name: curve for name, curve in curves.items() if curve}:
            plots[label] = charts.curve_chart(label, curves)
    return plots


def _gains(found: Mapping[str, Comparison], inputs: ReportInputs) -> dict[str, Comparison]:
    """Label -> comparison of the chosen ranker with each rival on the first pool, and of its control with a random pick."""
    start = f"{inputs.pools[0].name}/{inputs.chosen}"
    rows = {
        f"over {name[len(start) + 1 :]}": row for name, row in found.items() if name.startswith(f"{start}-")
    }
    control = found.get(f"{start}{SHUFFLED}-random")
    return rows | ({"shuffled, over random": control} if control else {})


def _changes(found: Mapping[str, Comparison], inputs: ReportInputs) -> dict[str, Comparison]:
    """Label -> comparison between two rounds, in shares of problems solved."""
    rows: dict[str, Comparison] = {}
    for name, row in found.items():
        if name.startswith("system/"):
            now, then = name.removeprefix("system/").split("-")
            rows[f"system {now} \N{MINUS SIGN} system {then}"] = row
    # Not by the policies: a run may train none, or not that of every round.
    for round_ in _numbers("rm", inputs.pools[0].rankers):
        judge, successor = f"rm-{round_}", f"rm-{round_ + 1}"
        names = {pool.name: f"{pool.name}/{successor}-{judge}" for pool in inputs.pools}
        rows |= {
            f"on {pool}: {successor} \N{MINUS SIGN} {judge}": found[name]
            for pool, name in names.items()
            if name in found
        }
    return rows


def _shifts(found: Mapping[str, Comparison], inputs: ReportInputs) -> dict[str, Comparison]:
    """Label -> difference between the mean scores of a PPO policy and of the SFT policy, by the reranker of PPO's training."""
    rounds = _numbers("ppo", [pool.name for pool in inputs.pools])
    names = ((number, f"score/ppo-{number}-sft") for number in rounds)
    return {f"rm-{n} score: ppo-{n} \N{MINUS SIGN} sft": found[name] for n, name in names if name in found}


def _numbers(kind: str, names: Iterable[str]) -> list[int]:
    """The numbers N of the names `KIND-N` in `names`, in their order."""
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(rf"{kind}-(\d+)", name)))


def _chart(rows: Mapping[str, Comparison], *, shares: bool = True) -> str | None:
    return charts.difference_chart(rows, shares=shares) if rows else None
