"""Tests of the registry of champions: concurrent decisions on disk and on S3, decisions by hand, damaged records, pages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import main
from selftrain.champion.drift import drift_markdown, drift_page, history, since
from selftrain.champion.registry import (
    Contender,
    Figures,
    Record,
    Registry,
    Share,
    champion_of,
    champion_record,
    contender,
    find_registry,
    names,
    promote_by_hand,
)
from selftrain.errors import UsageError
from selftrain.stage import ArtifactRef, Outcome
from selftrain.store.store import Store
from tests.command import ROOT

KEYS = ["a" * 32, "ab" + "0" * 30, "c" * 32]


def reranker(number: int) -> Contender:
    """The one with that key; of `number` rounds."""
    return Contender(
        reranker=f"train_reward/{KEYS[number - 1]}", rounds=number, ranker=f"rm-{number}", generator="sft/s"
    )


def promoted(number: int, champion: Contender) -> Record:
    return Record(number=number, decision="promoted", reason="made", champion=champion, challenger=champion)


def stored(store: Store, stage: str, key: str, name: str, **inputs: str) -> None:
    """Put an artifact with that manifest into the store."""

    def make(folder: Path) -> Outcome:
        (folder / "weights").write_text(key)
        return Outcome("digest")

    store.build(ArtifactRef(stage, key), {"name": name, "label": name, "inputs": inputs}, make)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with three rerankers of one chain: the later go on from the earlier."""
    store = Store(str(tmp_path / "store"))
    stored(store, "mine", "m", "mine-1", problems="prepare/p")
    stored(store, "train_reward", KEYS[0], "rm-1", start="sft/s", pairs="mine/m")
    for number in (2, 3):
        stored(
            store, "train_reward", KEYS[number - 1], f"rm-{number}",
            start=f"train_reward/{KEYS[number - 2]}", pairs="mine/m",
        )  # fmt: skip
    return store


def test_records_come_back_in_order_and_a_number_is_given_once(store: Store):
    registry = Registry(store, "night")
    assert (registry.records(), names(store)) == ([], [])
    records = [promoted(1, reranker(1)), promoted(2, reranker(2))]
    assert [registry.append(record) for record in records] == [True, True]
    assert not registry.append(promoted(2, reranker(3)))
    assert registry.records() == records
    assert Registry(store, "other").records() == []
    assert names(store) == ["night"]
    assert sorted(path.name for path in Path(registry.folder).iterdir()) == ["000001.json", "000002.json"]


RACER = """
import sys
from selftrain.champion.registry import Contender, Record, Registry
from selftrain.store.store import Store

url, who = sys.argv[1:]
registry = Registry(Store(url), "race")
champion = Contender(reranker=f"train_reward/{who}", rounds=1, ranker="rm-1")
print("ready", flush=True)
sys.stdin.readline()
for number in range(1, 31):
    won = registry.append(Record(number=number, decision="promoted", reason=who, champion=champion))
    print(number, won, flush=True)
"""


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_two_promoters_at_once_leave_one_champion_for_every_number(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    url = str(tmp_path / "store")
    if kind == "s3":
        server = request.getfixturevalue("s3")
        url = server.store()
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
    racers = {
        who: subprocess.Popen(
            [sys.executable, "-c", RACER, url, who],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for who in ("one", "two")
    }
    for racer in racers.values():
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    won: dict[str, set[int]] = {}
    for racer in racers.values():
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for who, racer in racers.items():
        lines = racer.communicate(timeout=120)[0].splitlines()
        assert racer.returncode == 0
        assert len(lines) == 30
        won[who] = {int(line.split()[0]) for line in lines if line.endswith("True")}
    records = Registry(Store(url, tmp_path / "local"), "race").records()
    assert [record.number for record in records] == list(range(1, 31))
    assert {who: {r.number for r in records if r.reason == who} for who in racers} == won


def test_rolling_back_and_promoting_by_hand_are_on_record(store: Store):
    registry = Registry(store, "night")
    for number in (1, 2):
        registry.append(promoted(number, reranker(number)))
    back = promote_by_hand(registry, "aa", "too slow")
    assert (back.number, back.decision, back.reason, back.champion) == (
        3,
        "rolled back",
        "too slow",
        reranker(1),
    )
    unknown = promote_by_hand(registry, f"train_reward/{KEYS[2]}", "try it")
    assert (unknown.number, unknown.decision) == (4, "promoted by hand")
    # what it came from, by way of the manifests of the rerankers that it goes on from
    assert unknown.champion == reranker(3).model_copy(update={"problems": "prepare/p"})
    assert registry.records()[-1] == unknown
    assert since(registry.records()) == unknown
    with pytest.raises(UsageError, match="is the champion of night already"):
        promote_by_hand(registry, "ccc", "again")


def test_a_champion_by_hand_ranks_as_an_evaluation_on_the_sft_policys_candidates_says(store: Store):
    """Its evaluation with the candidates of another policy says nothing of how it ranks those of the SFT policy."""
    stored(store, "sample", "s", "sample-sft-evaluation", generator="sft/s")
    stored(
        store,
        "evaluate",
        "e0",
        "evaluate",
        problems="prepare/p",
        **{"ppo-1.candidates": "sample/x", "rm-3": f"train_reward/{KEYS[2]}"},
    )
    with pytest.raises(UsageError, match="has no evaluation"):
        champion_record(store, reranker(3))
    stored(
        store,
        "evaluate",
        "e1",
        "evaluate",
        problems="prepare/p",
        **{"sft.candidates": "sample/s", "rm-3": f"train_reward/{KEYS[2]}"},
    )
    record = champion_record(store, reranker(3))
    assert record["stages"]["evaluate"] == {"stage": "evaluate", "key": "e1"}
    assert record["stages"]["sft"] == {"stage": "sft", "key": "s"}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("a", "2 rerankers start with a: train_reward/aaaa.*give more digits"),
        ("", "no reranker"),
        ("9", "no reranker"),
    ],
)
def test_a_key_must_name_one_reranker(store: Store, key: str, message: str):
    with pytest.raises(UsageError, match=message):
        contender(store, [], key)


def test_a_reranker_that_is_gone_cannot_be_champion(store: Store):
    registry = Registry(store, "night")
    registry.append(promoted(1, reranker(1)))
    registry.append(promoted(2, reranker(2)))
    (Path(store.root) / "train_reward" / KEYS[0] / "manifest.json").unlink()
    with pytest.raises(UsageError, match=r"aaaa is not in .* any more"):
        promote_by_hand(registry, "aa", "back")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "content: Invalid JSON"),
        ("", "content: Invalid JSON"),
        ('{"number": 2}', "decision: Field required"),
        (promoted(7, reranker(1)).model_dump_json(), "its number is 7"),
        (
            json.dumps(promoted(2, reranker(1)).model_dump() | {"decision": "maybe"}),
            "decision: Input should be",
        ),
    ],
)
def test_a_broken_record_is_named(store: Store, capsys: pytest.CaptureFixture[str], content: str, said: str):
    registry = Registry(store, "night")
    registry.append(promoted(1, reranker(1)))
    path = Path(registry.folder) / "000002.json"
    path.write_text(content)
    assert main(["champion", "--store", store.url]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"selftrain: {path} is not a record of a decision ({said}")
    assert "delete it" in told


def test_which_registry_is_meant(store: Store):
    with pytest.raises(UsageError, match="no champion in"):
        find_registry(store, None)
    for name in ("night", "day"):
        Registry(store, name).append(promoted(1, reranker(1)))
    assert find_registry(store, "day").name == "day"
    for name in (None, "noon"):
        with pytest.raises(UsageError, match="--name with one of: day, night"):
            find_registry(store, name)
    with pytest.raises(UsageError, match="the name of a config"):
        Registry(store, "../night")


# What is shown


def share(value: float) -> Share:
    return Share(value=value, low=value - 0.05, high=value + 0.05)


def figures(challenger: float, champion: float | None) -> Figures:
    return Figures(
        problems=80, random=share(0.3), oracle=share(0.9), challenger=share(challenger),
        champion=None if champion is None else share(champion), pass_rate=0.31, sandbox_errors=2, training_seconds=75.0,
    )  # fmt: skip


HISTORY = [
    promoted(1, reranker(1)).model_copy(update={"figures": figures(0.5, None)}),
    promoted(2, reranker(2)).model_copy(
        update={"rival": reranker(1), "difference": share(0.1), "figures": figures(0.6, 0.5)}
    ),
    Record(
        number=3, decision="not promoted", reason="worse", champion=reranker(2), challenger=reranker(3), rival=reranker(2),
        difference=share(-0.2), figures=figures(0.4, 0.6),
    ),
    Record(number=4, decision="rolled back", reason="<script>alert(1)</script> a|b", champion=reranker(1)),
]  # fmt: skip


def test_the_history_says_who_since_when_and_why():
    lines = history("night", HISTORY[:3]).splitlines()
    assert lines[0] == f"champion of night: rm-2  train_reward/{KEYS[1]}"
    assert lines[1] == f"since {HISTORY[1].time} (record 2, promoted): made"
    assert [line.split()[0] for line in lines[4:]] == ["1", "2", "3"]
    assert (
        "not promoted      rm-3            \N{MINUS SIGN}0.200 [\N{MINUS SIGN}0.250, \N{MINUS SIGN}0.150]"
        in lines[6]
    )


def test_a_history_without_a_champion_yet_says_so(store: Store, tmp_path: Path):
    registry = Registry(store, "night")
    none = Record(
        number=1, decision="not promoted", reason="no better", champion=None, challenger=reranker(1), figures=figures(0.3, None)
    )  # fmt: skip
    assert registry.append(none)
    lines = history("night", registry.records()).splitlines()
    assert lines[:2] == [
        "champion of night: none yet",
        f"since {none.time} (record 1, not promoted): no better",
    ]
    assert lines[4].endswith("none yet")
    assert "| 1: not promoted |" in drift_markdown([none])
    assert "No champion yet" in drift_page("night", [none])
    with pytest.raises(
        UsageError, match="night has no champion in .* yet: no better; `selftrain promote KEY"
    ):
        champion_of(registry)
    later = promoted(2, reranker(2))
    assert since([none, later]) == later


def test_the_drift_page_stands_alone_and_shows_every_decision(store: Store, tmp_path: Path):
    registry = Registry(store, "night")
    for record in HISTORY:
        assert registry.append(record)
    page = tmp_path / "pages" / "drift.html"
    assert main(["drift", "--store", store.url, "--out", str(page)]) == 0
    text = page.read_text()
    assert text == drift_page("night", HISTORY)
    assert text.startswith("<!doctype html>")
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', ""), "it opens offline"
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; a|b" in text
    for tip in ("challenger: 0.4 at decision 3", "champion: 0.6 at decision 3", "random: 0.3 at decision 3"):
        assert f"<title>{tip}</title>" in text
    assert "3: rm-3: \N{MINUS SIGN}20.0 [\N{MINUS SIGN}25.0, \N{MINUS SIGN}15.0]" in text
    assert text.count("<svg") == 6
    assert [f"<td>{r.number}: {r.decision}</td>" in text for r in HISTORY] == [True] * 4


def test_decisions_by_hand_alone_have_a_page_too():
    assert "all were made by hand" in drift_page("night", HISTORY[3:])


def test_the_markdown_has_a_row_a_decision_and_its_plots_as_images():
    lines = drift_markdown(HISTORY).splitlines()
    assert [line.split(" ")[1] for line in lines[2:6]] == ["1:", "2:", "3:", "4:"]
    assert {line.count(" |") for line in lines[:6]} == {lines[0].count(" |")}
    assert sum("](data:image/svg+xml;base64," in line for line in lines) == 2
