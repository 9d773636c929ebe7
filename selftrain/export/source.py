"""Finds what is exported: the last reranker of a finished run, or the champion of a store, with its evaluation and its config."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.champion.registry import Contender, evaluation_of
from selftrain.errors import UsageError
from selftrain.evaluation.comparisons import Comparison
from selftrain.evaluation.metrics import PoolMetrics
from selftrain.evaluation.pools import WITH_LOGPROB
from selftrain.rerank.places import find_champion, reranker_folder
from selftrain.stage import ArtifactRef
from selftrain.store.runfile import find_run, read_run
from selftrain.store.store import Store

POOL = "sft"
"""The pool whose figures are shown: the candidates of the run's generator for its test problems."""
COMMIT = 40
"""Hex digits of a commit on the hub; the digest of a folder's files has 64."""


@dataclass(frozen=True)
class Source:
    """A reranker and what its run found out about it.

    name       of the run's config
    folder     the reranker's checkpoint
    reranker   its artifact
    ranker     its name in the run, such as rm-2
    way        the ranking rule that validation chose: `ranker`, or `ranker` with log-probability
    config     the run's config
    evaluated  content of the run's evaluation.json
    problems   split -> number of problems
    trained    metrics of the reranker's last training
    base       the pretrained model that training started from, as people may read it; None: random weights
    hub_base   its id on the hub, if it comes from there
    """

    name: str
    folder: Path
    reranker: ArtifactRef
    ranker: str
    way: str
    config: Mapping[str, Any]
    evaluated: Mapping[str, Any]
    problems: Mapping[str, int]
    trained: Mapping[str, Any]
    base: str | None
    hub_base: str | None

    @property
    def pool(self) -> PoolMetrics:
        """The shares of test problems that each ranking rule solves."""
        found: PoolMetrics = self.evaluated["evaluation"]["pools"][POOL]
        return found

    @property
    def logprob_weight(self) -> float:
        """Weight of the mean log-probability per token, where it is added to the score."""
        return float(self.evaluated["logprob_weights"][self.ranker])

    def difference(self, way: str, rival: str) -> Comparison | None:
        """The paired difference of two ranking rules; None where the run did not compare them."""
        rows: list[Comparison] = self.evaluated["evaluation"]["comparisons"]
        return next((row for row in rows if row["name"] == f"{POOL}/{way}-{rival}"), None)


def find(place: str) -> Source:
    """The last reranker of a finished run (its folder, or its name in runs/), or the champion (`champion[:NAME][@STORE]`).

    Raises UsageError where there is none, or it was never evaluated.
    """
    if found := find_champion(place):
        return _of_champion(*found)
    folder = find_run(place)
    record = read_run(folder)
    checkpoint = reranker_folder(folder)
    stages = {name: ArtifactRef(ref["stage"], ref["key"]) for name, ref in record["stages"].items()}
    if "evaluate" not in stages:
        raise UsageError(
            f"{place}: this run has no stage evaluate, whose figures the model card shows; finish it with `selftrain run`"
        )
    [*_, ranker] = [name for name, ref in stages.items() if ref.stage == "train_reward"]
    store = Store(record["store"])
    way = _evaluation(store, stages["evaluate"])["chosen"]
    return _source(store, checkpoint, stages[ranker], way, record["config"], stages["evaluate"])


def _of_champion(store: Store, champion: Contender) -> Source:
    evaluate = evaluation_of(store, champion)
    configs = [
        m["config"]["config"]
        for m in store.manifests("report")
        if evaluate and m["inputs"].get("evaluation") == str(evaluate)
    ]
    if evaluate is None or not configs:
        raise UsageError(
            f"the champion {champion.reranker} has no evaluation and report in {store.url}, which the model card shows; run its "
            "config again"
        )
    reranker = ArtifactRef.parse(champion.reranker)
    return _source(store, store.path(reranker), reranker, champion.ranker, configs[-1], evaluate)


def _source(
    store: Store,
    folder: Path,
    reranker: ArtifactRef,
    way: str,
    config: Mapping[str, Any],
    evaluate: ArtifactRef,
) -> Source:
    measured = store.manifest(evaluate) or {}
    prepared = store.manifest(ArtifactRef.parse(measured["inputs"]["problems"])) or {
        "metrics": {"problems": {}}
    }
    return Source(
        name=config["name"],
        folder=folder,
        reranker=reranker,
        ranker=way.removesuffix(WITH_LOGPROB),
        way=way,
        config=config,
        evaluated=_evaluation(store, evaluate),
        problems=prepared["metrics"]["problems"],
        trained=(store.manifest(reranker) or {"metrics": {}})["metrics"],
        **_base(store, reranker, config),
    )


def _base(store: Store, reranker: ArtifactRef, config: Mapping[str, Any]) -> dict[str, str | None]:
    """`Source.base` and `Source.hub_base`. Of a folder only its own name is told; the digest of a hub's model is a commit."""
    manifest = store.manifest(reranker) or {"inputs": {}, "config": {}, "stage": "sft"}
    while (
        manifest["stage"] == "train_reward"
        and not manifest["config"].get("base_digest")
        and "start" in manifest["inputs"]
    ):
        before = store.manifest(ArtifactRef.parse(manifest["inputs"]["start"]))
        if before is None:
            break
        manifest = before
    part = "reward" if manifest["stage"] == "train_reward" else "model"
    name, digest = config[part].get("base"), manifest["config"].get("base_digest")
    on_hub = name is not None and digest is not None and len(digest) == COMMIT
    return {"base": name if on_hub or name is None else Path(name).name, "hub_base": name if on_hub else None}


def _evaluation(store: Store, ref: ArtifactRef) -> dict[str, Any]:
    return dict(json.loads((store.place(ref) / "evaluation.json").read_text()))
