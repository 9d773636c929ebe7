"""The registry of champions: numbered records of decisions in the store, `URL/registry/NAME/000001.json`, ...

A record is written atomically and never changed. The last record names the champion. A run writes its decision under the next
number. If another run has already used that number, nothing is written, and the run decides again from the new records.
"""

import json
import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field, ValidationError

from selftrain.config import NAME, Strict
from selftrain.errors import StoreError, UsageError
from selftrain.stage import ArtifactRef
from selftrain.store.store import REGISTRY, Store


class Contender(Strict):
    """A reranker and the artifacts that it depends on, each as `STAGE/KEY`.

    reranker        artifact of the reranker
    rounds          number of rounds of its run, in which it is rm-ROUNDS
    ranker          the rule that was better on validation: the score alone (`rm-2`), or `rm-2+logprob`
    logprob_weight  weight of the log-probability; 0 for the score alone
    generator       artifact of the SFT policy whose candidates it ranks
    problems        artifact of its run's problems
    evaluation      artifact of its evaluation; None if it was promoted by hand and never evaluated
    """

    reranker: str
    rounds: int
    ranker: str
    logprob_weight: float = 0.0
    generator: str | None = None
    problems: str | None = None
    evaluation: str | None = None


class Identity(Strict):
    """The state on which a decision depends.

    champion  artifact of the champion; None before the first
    problems  artifact of stage `prepare`, whose key covers the content of the source
    method    fingerprint of the config, the stages' versions, the toolchain and the problems
    """

    champion: str | None
    problems: str
    method: str


class Share(Strict):
    """A share of problems, or a difference between two shares, with its 95 % interval."""

    value: float
    low: float
    high: float


class Figures(Strict):
    """Metrics at a decision, on the test problems and the SFT policy's candidates for them.

    problems          number of test problems
    random, oracle, challenger, champion   shares of test problems solved; champion: None if there was no rival
    pass_rate         share of passing candidates of the SFT policy for the rl split
    sandbox_errors    number of the run's programs that the sandbox could not judge
    training_seconds  training time of the challenger's last round, reranker and (if it was trained) policy together
    """

    problems: int
    random: Share
    oracle: Share
    challenger: Share
    champion: Share | None
    pass_rate: float
    sandbox_errors: int
    training_seconds: float


class Record(Strict):
    """One decision.

    champion    the champion after the decision; None while there is none
    rival       the champion with which the challenger was compared
    difference  share of problems that the challenger solves, minus the share that `rival` solves
    identity    None for decisions by hand, as are `challenger`, `rival`, `difference` and `figures`
    """

    number: int
    time: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    decision: Literal["promoted", "not promoted", "rolled back", "promoted by hand"]
    reason: str
    champion: Contender | None
    challenger: Contender | None = None
    rival: Contender | None = None
    difference: Share | None = None
    identity: Identity | None = None
    figures: Figures | None = None


class Registry:
    """The registry `name` in `store`."""

    def __init__(self, store: Store, name: str) -> None:
        if not re.fullmatch(NAME, name):
            raise UsageError(f"name {name!r}: expected the name of a config, of letters, digits and . _ -")
        self.store = store
        self.name = name
        self.folder = f"{store.root}/{REGISTRY}/{name}"

    def records(self) -> list[Record]:
        """All records, the oldest first. Raises StoreError that names the record if one is damaged."""
        found = self.store.files.children(self.folder)
        return [self._read(f"{self.folder}/{name}") for name in found if re.fullmatch(r"\d+\.json", name)]

    def append(self, record: Record) -> bool:
        """Write `record` under its number. Returns False if the number is taken. Raises StoreError if the store refuses."""
        path = self._path(record.number)
        self.store.files.create(path, json.dumps(record.model_dump(), indent=1).encode())
        return self._read(path).id == record.id

    def _path(self, number: int) -> str:
        return f"{self.folder}/{number:06}.json"

    def _read(self, path: str) -> Record:
        text = self.store.files.read(path)
        try:
            record = Record.model_validate_json(text)
            if path.endswith(self._path(record.number).rpartition("/")[2]):
                return record
            what = f"its number is {record.number}"
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
        raise StoreError(
            f"{path} is not a record of a decision ({what}); expected what `selftrain promote` or a run writes. Restore it from "
            "a copy, or delete it: then the record before it counts"
        )


def champion_of(registry: Registry) -> Contender:
    """The champion of `registry`. Raises UsageError if there is none yet."""
    records = registry.records()
    if not records or records[-1].champion is None:
        raise UsageError(
            f"{registry.name} has no champion in {registry.store.url} yet{': ' + records[-1].reason if records else ''}; "
            f"`selftrain promote KEY --name {registry.name}` promotes a reranker by hand"
        )
    return records[-1].champion


def names(store: Store) -> list[str]:
    """Names of the registries in `store`."""
    return store.files.children(f"{store.root}/{REGISTRY}")


def find_registry(store: Store, name: str | None) -> Registry:
    """The registry `name`; None: the only registry. Raises UsageError if it does not exist, or if there are several."""
    known = names(store)
    if name is not None and name in known:
        return Registry(store, name)
    if name is None and len(known) == 1:
        return Registry(store, known[0])
    if not known:
        raise UsageError(
            f"no champion in {store.url} yet: `selftrain run CONFIG --champion` promotes its result, `selftrain promote KEY "
            "--name NAME` promotes a reranker by hand"
        )
    raise UsageError(f"expected --name with one of: {', '.join(known)}; got {name or 'none'} in {store.url}")


def contender(store: Store, records: Iterable[Record], key: str) -> Contender:
    """The contender whose reranker's key starts with `key`: from the newest record that has it, else from its manifest.

    Raises UsageError if no reranker matches, if several do, or if its files are missing.
    """
    wanted = key.rsplit("/", 1)[-1]
    named = [
        one
        for record in records
        for one in (record.rival, record.challenger, record.champion)
        if one is not None
    ]
    known = {one.reranker: one for one in named}
    manifests = {f"train_reward/{m['key']}": m for m in store.manifests("train_reward")}
    found = sorted(
        ref for ref in known.keys() | manifests.keys() if wanted and ref.partition("/")[2].startswith(wanted)
    )
    if not found:
        raise UsageError(
            f"no reranker with key {key!r} in {store.url}; `selftrain show RUN` lists the keys of a run"
        )
    if len(found) > 1:
        raise UsageError(f"{len(found)} rerankers start with {key}: {', '.join(found[:4])}; give more digits")
    (ref,) = found
    if not store.has(ArtifactRef.parse(ref)):
        raise UsageError(
            f"{ref} is not in {store.url} any more, or its files are incomplete; run its config again to rebuild it"
        )
    return known.get(ref) or _from_manifests(store, manifests[ref])


def _from_manifests(store: Store, manifest: dict[str, Any]) -> Contender:
    """A contender that is in no record, from the manifests of the reranker and of its inputs."""
    name = str(manifest["name"])

    def source(of: dict[str, Any], role: str) -> str | None:
        ref = of["inputs"].get(role)
        return None if ref is None else str(ref)

    start, problems = source(manifest, "start"), None
    while start is not None and start.startswith("train_reward/"):
        start = source(store.manifest(ArtifactRef.parse(start)) or {"inputs": {}}, "start")
    pairs = source(manifest, "pairs")
    if pairs is not None:
        problems = source(store.manifest(ArtifactRef.parse(pairs)) or {"inputs": {}}, "problems")
    return Contender(
        reranker=f"train_reward/{manifest['key']}",
        rounds=int(name.rpartition("-")[2]),
        ranker=name,
        generator=start,
        problems=problems,
    )


def evaluation_of(store: Store, champion: Contender) -> ArtifactRef | None:
    """The evaluation of a champion on candidates of the SFT policy; of one that was promoted by hand, one of a run that has it. None
    if there is none."""
    known = champion.evaluation or next(
        (
            f"evaluate/{m['key']}"
            for m in store.manifests("evaluate")
            if m["inputs"].get(champion.ranker) == champion.reranker and "sft.candidates" in m["inputs"]
        ),
        None,
    )
    return None if known is None else ArtifactRef.parse(known)


def champion_record(store: Store, champion: Contender) -> dict[str, Any]:
    """What `selftrain.rerank.picker` reads of a run's record (`run.json`), for a champion.

    Raises UsageError where it was never evaluated, or its evaluation is not in the store any more.
    """
    evaluation = evaluation_of(store, champion)
    measured = store.manifest(evaluation) if evaluation else None
    if evaluation is None or measured is None:
        raise UsageError(
            f"the champion {champion.reranker} has no evaluation in {store.url}, which says how it ranks; run its config again"
        )
    candidates = ArtifactRef.parse(measured["inputs"]["sft.candidates"])
    sampled = store.manifest(candidates) or {"inputs": {}}
    problems = ArtifactRef.parse(measured["inputs"]["problems"])
    prepared = store.manifest(problems) or {"config": {}}
    generator = champion.generator or sampled["inputs"].get("generator")
    stages = {"prepare": problems, "sample-sft-evaluation": candidates, "evaluate": evaluation}
    if generator is not None:
        stages["sft"] = ArtifactRef.parse(generator)
    return {
        "name": "champion",
        "store": store.url,
        "stages": {name: {"stage": ref.stage, "key": ref.key} for name, ref in stages.items()},
        "config": {"problems": prepared["config"].get("problems", {})},
    }


def promote_by_hand(registry: Registry, key: str, reason: str) -> Record:
    """Promote the reranker `key` without a comparison; returns the new record. Raises UsageError as `contender` does."""
    while True:
        records = registry.records()
        chosen = contender(registry.store, records, key)
        champions = [record.champion.reranker for record in records if record.champion]
        if champions and champions[-1] == chosen.reranker:
            raise UsageError(f"{chosen.reranker} is the champion of {registry.name} already")
        before = chosen.reranker in champions
        record = Record(
            number=next_number(records),
            decision="rolled back" if before else "promoted by hand",
            reason=reason,
            champion=chosen,
        )
        if registry.append(record):
            return record


def next_number(records: list[Record]) -> int:
    """The number of the next record."""
    return records[-1].number + 1 if records else 1
