"""Tests of the model card, selftrain.json and the exported folder, and of the upload at the border to the hub."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError

from selftrain.errors import RunError, UsageError
from selftrain.export import folder as folders
from selftrain.export.card import facts, model_card
from selftrain.export.checkpoint import Exact
from selftrain.export.folder import export
from selftrain.export.hub import contents, push
from selftrain.export.source import Source
from selftrain.stage import ArtifactRef

EXACT = Exact(template=True, pair=True)


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": round(value - 0.05, 3), "high": round(value + 0.05, 3)}


def metrics(problems: int, less: float) -> dict[str, Any]:
    """Shares of an evaluation; `less` is subtracted from each."""
    names = {"random": 0.3, "greedy": 0.31, "logprob": 0.35, "majority": 0.34, "oracle": 0.9}
    rankers = {"rm-1": 0.5, "rm-2": 0.6, "rm-2+logprob": 0.65, "agreement": 0.33}
    return {
        "problems": problems,
        "samples": 16,
        **{name: share(value - less) for name, value in names.items()},
        "logprob_sum": share(0.2 - less),
        "examples": None,
        "rankers": {name: share(value - less) for name, value in rankers.items()},
    }


@pytest.fixture
def source(reranker: Path) -> Source:
    """A reranker of two languages, better with log-probability, without a pretrained base."""
    comparisons = [
        {"name": f"sft/{way}-{rival}", "value": value, "low": value - 0.1, "high": value + 0.1}
        for way, rival, value in (
            ("rm-2", "logprob", 0.25),
            ("rm-2+logprob", "logprob", 0.3),
            ("rm-2", "random", 0.9),
        )
    ]
    pool = {"overall": metrics(240, 0.0), "languages": {"py": metrics(120, 0.01), "sh": metrics(120, -0.01)}}
    return Source(
        name="tiny",
        folder=reranker,
        reranker=ArtifactRef("train_reward", "ab" * 16),
        ranker="rm-2",
        way="rm-2+logprob",
        config={
            "seed": 3,
            "rounds": 2,
            "problems": {"source": "bank"},
            "reward": {"base": None},
            "model": {"base": None},
        },
        evaluated={
            "evaluation": {"pools": {"sft": pool}, "comparisons": comparisons},
            "logprob_weights": {"rm-1": 1.0, "rm-2": 2.5},
            "chosen": "rm-2+logprob",
        },
        problems={"sft": 100, "rl": 50, "validation": 20, "test": 240},
        trained={"pairs": 777},
        base=None,
        hub_base=None,
    )


def test_the_card_says_how_often_each_way_is_right(source: Source):
    text = model_card(source, EXACT, "me/tiny", None)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert (
        rows[0]
        == "| how one of 16 candidates is picked | all (240 problems) | Python (120 problems) | Bash (120 problems) |"
    )
    assert rows[1] == "| at random | 0.300 [0.250, 0.350] | 0.290 [0.240, 0.340] | 0.310 [0.260, 0.360] |"
    assert len(rows) == 10, "the head, six rules without training, two of rm-2, the oracle; no rm-1"
    assert rows[7].startswith("| **this model: highest score** | 0.600 [0.550, 0.650] |")
    assert rows[8].startswith(
        "| **score + 2.5 × mean log-probability per token under the generator** | 0.650 "
    )
    assert rows[9].startswith("| oracle: at least one candidate passes | 0.900 ")
    best = "the best rule without training (highest mean log-probability per token under the generator)"
    assert f"this model minus {best}, paired by problem: +0.250 [+0.150, +0.350]" in text
    assert "this folder alone gives the row *highest score*" in text
    assert "777 pairs" in text
    assert 'pipeline("text-classification", model="me/tiny")' in text


def test_its_front_matter_is_what_the_hub_reads(source: Source):
    data = ModelCard(
        model_card(replace(source, base="own/Base-1B", hub_base="own/Base-1B"), EXACT, "me/tiny", None)
    ).data
    assert data.base_model == "own/Base-1B"
    assert (data.library_name, data.pipeline_tag, data.license) == (
        "transformers",
        "text-classification",
        "other",
    )
    assert [result.metric_value for result in data.eval_results] == [0.6, 0.65]
    alone = ModelCard(model_card(source, EXACT, "me/tiny", None)).data
    assert (alone.get("base_model"), alone.license) == (None, "apache-2.0")
    assert ModelCard(model_card(source, EXACT, "me/tiny", "mit")).data.license == "mit"


def test_a_base_model_from_a_folder_has_no_path_and_no_licence_in_the_card(source: Source):
    text = model_card(replace(source, base="base-135m"), EXACT, "me/tiny", None)
    assert "- Base model: base-135m" in text
    assert "That of the base model, base-135m: look at it" in text


def test_a_run_of_one_language_has_one_column(source: Source):
    pool = source.evaluated["evaluation"]["pools"]["sft"]
    del pool["languages"]["sh"]
    text = model_card(source, EXACT, "me/tiny", None)
    assert "| how one of 16 candidates is picked | Python (120 problems) |" in text


def test_the_best_rule_without_training_is_compared_without_a_pair_if_there_is_none(source: Source):
    overall = source.evaluated["evaluation"]["pools"]["sft"]["overall"]
    del overall["logprob_sum"]  # as in evaluations of earlier versions
    overall["rankers"]["agreement"] = share(0.4)
    assert facts(source, EXACT)["best_untrained"] == "agreement"
    assert facts(source, EXACT)["solved"]["best_untrained"] == share(0.4)
    assert "The run has no paired interval for it" in model_card(source, EXACT, "me/tiny", None)


def test_the_card_does_not_advise_what_gives_other_scores(source: Source):
    text = model_card(source, Exact(template=True, pair=False), "me/tiny", None)
    assert "text_pair" not in text
    assert "reward_funcs" in text
    text = model_card(source, Exact(template=False, pair=False), "me/tiny", None)
    assert "reward_funcs" not in text


def test_the_folder_notes_the_rule_and_its_figures(source: Source, tmp_path: Path):
    export(source, tmp_path / "new" / "out", "me/tiny")
    said = json.loads((tmp_path / "new" / "out" / "selftrain.json").read_text())
    names = [name for name, _ in contents(tmp_path / "new" / "out")]
    assert said == facts(source, EXACT) | {"files": names}
    assert (said["way"], said["logprob_weight"], said["best_untrained"]) == ("rm-2+logprob", 2.5, "logprob")
    assert said["solved"] == {
        "alone": share(0.6),
        "with_logprob": share(0.65),
        "best_untrained": share(0.35),
    }
    assert names == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "selftrain.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    found = "".join(path.read_text() for path in (tmp_path / "new" / "out").glob("*[nd]") if path.is_file())
    assert str(source.folder) not in found
    assert str(tmp_path) not in found


def test_an_export_replaces_an_earlier_one_and_nothing_else(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    export(source, tmp_path / "out")
    out = tmp_path / "out"
    (out / "merges.txt").write_text("of an earlier reranker's tokenizer")
    said = json.loads((out / "selftrain.json").read_text())
    (out / "selftrain.json").write_text(json.dumps(said | {"files": [*said["files"], "merges.txt"]}))
    (tmp_path / "link").symlink_to("out")
    export(source, tmp_path / "link")
    assert not (out / "merges.txt").exists()
    assert sorted(path.name for path in out.iterdir()) == said["files"]
    (tmp_path / "link").unlink()
    (out / ".git").mkdir()
    (out / "notes.txt").write_text("mine")
    for listing in (said["files"], None, 7):  # older versions listed none
        (out / "selftrain.json").write_text(json.dumps({"files": listing}))
        with pytest.raises(
            UsageError, match="beside an earlier export it holds .git, notes.txt, which would be lost"
        ):
            export(source, out)
    assert (out / "notes.txt").read_text() == "mine"
    (out / ".git").rmdir()
    (out / "notes.txt").unlink()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("work")
    with pytest.raises(UsageError, match="holds something else"):
        export(source, mine)
    with pytest.raises(UsageError, match="cannot be written"):
        export(source, mine / "thesis.tex" / "out")

    def fails(*_: Any) -> str:
        raise RuntimeError("full")

    monkeypatch.setattr(folders, "model_card", fails)
    with pytest.raises(RuntimeError, match="full"):
        export(source, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").is_file(), "the earlier export is still there"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "mine"}

    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "model_card", full)
    with pytest.raises(UsageError, match="out: cannot be written: .*No space left on device"):
        export(source, tmp_path / "out")


class Hub:
    """Stands in for `HfApi`. `asked`: what it was asked for."""

    refuses = False
    public = False
    asked: list[tuple[str, dict[str, Any]]]

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.asked.append((repo_id, options))
        if self.refuses:
            raise HfHubHTTPError(
                "403 Forbidden: you need\n a role", response=SimpleNamespace(headers={}, request=None)
            )

    def model_info(self, repo_id: str) -> Any:
        return SimpleNamespace(private=not self.public)

    def upload_folder(self, **options: Any) -> Any:
        self.asked.append(("upload", options))
        return SimpleNamespace(repo_url="https://huggingface.co/me/tiny")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub that takes everything, and a user who is logged in."""
    hub = Hub()
    hub.asked = []
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    return hub


def test_push_uploads_the_files_of_the_folder(hub: Hub, tmp_path: Path):
    (tmp_path / "README.md").write_text("card")
    (tmp_path / "cache").mkdir()
    assert push(tmp_path, "me/tiny", private=True) == "https://huggingface.co/me/tiny"
    [(repo, made), (_, sent)] = hub.asked
    assert (repo, made) == ("me/tiny", {"private": True, "exist_ok": True})
    assert (sent["repo_id"], sent["folder_path"], sent["allow_patterns"]) == (
        "me/tiny",
        tmp_path,
        ["README.md"],
    )


def test_a_private_push_to_a_public_repository_uploads_nothing(hub: Hub, tmp_path: Path):
    hub.public = True
    with pytest.raises(UsageError, match="--private: me/tiny is public, and nothing was uploaded"):
        push(tmp_path, "me/tiny", private=True)
    assert [what for what, _ in hub.asked] == ["me/tiny"]
    push(tmp_path, "me/tiny", private=False)
    assert hub.asked[-1][0] == "upload"


def test_push_without_a_token_or_against_a_refusal_is_one_line(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hub.refuses = True
    with pytest.raises(
        RunError, match="me/tiny: the hub did not take the folder: 403 Forbidden: you need a role"
    ):
        push(tmp_path, "me/tiny", private=False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UsageError, match="no token for the hub; log in"):
        push(tmp_path, "me/tiny", private=False)
    assert len(hub.asked) == 1
