"""`selftrain why`: how an artifact's key differs from that of the most similar earlier artifact of its stage."""

from collections.abc import Mapping
from typing import Any

from selftrain.errors import UsageError
from selftrain.store.runrecords import run_records, when
from selftrain.store.store import Store

STAGES = ("prepare", "sft", "sample", "execute", "mine", "train_reward", "ppo", "agree", "evaluate", "report")
"""All stages, in running order."""
IDENTITY = ("version", "config", "inputs")
"""Fields of a manifest that determine the key."""
Stages = Mapping[str, Mapping[str, str]]
"""Name in a run, such as `rm-2` -> {"stage": STAGE, "key": KEY}, as in the run's record."""


def explain(store: Store, key: str, stages: Stages | None = None) -> str:
    """The fields in which the artifact `key` differs from the most similar earlier one of its stage, one line each.

    key     a key, its first digits, or a name in a run
    stages  the stages of the run in which a name is looked up; None: of the newest run in the store that has this name

    Raises UsageError where no artifact matches `key`, or several do.
    """
    manifests = {m["key"]: m for stage in STAGES for m in store.manifests(stage)}
    wanted = key.rsplit("/", 1)[-1]
    matching = [m for k, m in manifests.items() if k.startswith(wanted)]
    newest = sorted(run_records(store).values(), key=when, reverse=True) if stages is None else ()
    runs = [record["stages"] for record in newest] if stages is None else [stages]
    named = [run[wanted]["key"] for run in runs if wanted in run]
    if named and not matching:
        if named[0] not in manifests:
            raise UsageError(
                f"{wanted} of that run, {named[0]}, is not in {store.url}: it has not been built, or is gone"
            )
        matching = [manifests[named[0]]]
    if not matching:
        known = list(dict.fromkeys(name for run in runs for name in run))
        names = f"; names of stages there: {', '.join(known)}" if known else ""
        raise UsageError(
            f"no artifact with key {key} in {store.url}; expected a key, its first digits, or a stage's name as `selftrain show "
            f"RUN` lists them{names}"
        )
    if len(matching) > 1:
        raise UsageError(
            f"{len(matching)} keys start with {key}: {', '.join(m['key'] for m in matching[:4])}; give more digits"
        )
    this = matching[0]
    lines = [f"{this['stage']}/{this['key']}  ({this['label']})"]
    fields = flatten({name: this[name] for name in IDENTITY})
    earlier = [
        m for m in manifests.values() if m["stage"] == this["stage"] and m["started"] < this["started"]
    ]
    if not earlier:
        lines += [
            "the first of its stage in this store; its key is made of:",
            *(f"  {n} = {v!r}" for n, v in fields.items()),
        ]
        return "\n".join(lines)
    differing = [(m, difference(flatten({name: m[name] for name in IDENTITY}), fields)) for m in earlier]
    other, changes = min(differing, key=lambda pair: (len(pair[1]), -pair[0]["started"]))
    lines.append(f"nearest earlier: {other['key']}  ({other['label']})")
    lines += changes or ["no difference"]
    return "\n".join(lines)


def flatten(value: Any, name: str = "") -> dict[str, Any]:
    """Nested JSON values as a flat dict: path, such as `a.b[0]` -> leaf."""
    if isinstance(value, dict):
        parts = [flatten(item, f"{name}.{key}" if name else key) for key, item in value.items()]
    elif isinstance(value, list):
        parts = [flatten(item, f"{name}[{at}]") for at, item in enumerate(value)]
    else:
        return {name: value}
    return dict(item for part in parts for item in part.items())


def difference(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """One line for each field that was added, removed or changed."""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            lines.append(f"  + {name} = {after[name]!r}")
        elif name not in after:
            lines.append(f"  - {name} = {before[name]!r}")
        elif before[name] != after[name]:
            lines.append(f"    {name}: {before[name]!r} -> {after[name]!r}")
    return lines
