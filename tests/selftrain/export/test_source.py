"""Tests of finding what is exported, and of the command, on a finished run."""

import json
import shutil
from pathlib import Path

import pytest

from flows.cli import main
from selftrain import Reranker
from selftrain.champion.registry import Registry, promote_by_hand
from selftrain.errors import UsageError
from selftrain.export.source import find
from selftrain.rerank.example import example
from selftrain.store.store import Store
from tests.command import Finished


def test_a_run_is_exported_with_its_figures(
    smoke_run: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "out"
    assert main(["export", str(smoke_run.out), str(folder), "--push", "me/tiny"]) == 0
    said = capsys.readouterr().out
    assert f"{folder}: rm-2 of smoke" in said
    assert "README.md" in said
    assert "would be uploaded to me/tiny; upload them with --yes" in said
    evaluated = json.loads((smoke_run.folder("evaluate") / "evaluation.json").read_text())
    facts = json.loads((folder / "selftrain.json").read_text())
    assert (facts["way"], facts["logprob_weight"]) == (
        evaluated["chosen"],
        evaluated["logprob_weights"]["rm-2"],
    )
    overall = evaluated["evaluation"]["pools"]["sft"]["overall"]
    assert facts["solved"]["alone"]["value"] == overall["rankers"]["rm-2"]["value"]
    assert f"| {overall['oracle']['value']:.3f} [" in (folder / "README.md").read_text()
    found = example(smoke_run.out)
    expected = Reranker.load(smoke_run.folder("rm-2")).score(found.prompt, found.candidates)
    assert Reranker.load(folder).score(found.prompt, found.candidates) == pytest.approx(expected, abs=1e-5)
    everything = "".join(path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors")
    assert str(smoke_run.store) not in everything


def test_the_champion_is_exported_from_its_store(smoke_run: Finished, tmp_path: Path):
    store = shutil.copytree(smoke_run.store, tmp_path / "store")
    registry = Registry(Store(str(store)), "smoke")
    promote_by_hand(registry, smoke_run.stages["rm-2"]["key"], "by hand")
    source = find(f"champion@{store}")
    assert (source.ranker, source.way) == ("rm-2", "rm-2"), "promoted by hand: nobody chose log-probability"
    assert source.pool == find(str(smoke_run.out)).pool
    shutil.rmtree(store / "report")
    with pytest.raises(UsageError, match="has no evaluation and report"):
        find(f"champion@{store}")


def test_a_run_that_is_not_finished_is_refused(
    smoke_run: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    record = json.loads((smoke_run.out / "run.json").read_text())
    del record["stages"]["evaluate"]
    record["reranker"] = str(smoke_run.folder("rm-2"))
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "has no stage evaluate" in capsys.readouterr().err
    assert main(["export", str(smoke_run.out), str(tmp_path / "out"), "--yes"]) == 2
    assert not (tmp_path / "out").exists()
