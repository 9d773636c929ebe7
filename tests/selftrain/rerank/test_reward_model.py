"""Tests of reward models of others as rankers: what they read, what enters the key, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from selftrain.config import EvaluateConfig, RunConfig, RuntimeConfig
from selftrain.errors import UsageError
from selftrain.evaluation.scores import Scores, read_scores
from selftrain.models.models import load_classifier, load_tokenizer
from selftrain.plan.suitable import check
from selftrain.records import Candidate, write_records
from selftrain.rerank import reward_model as module
from selftrain.rerank.reranker import Reranker
from selftrain.rerank.reward_model import RewardModel, model_at, reward_model_digests, reward_model_folder
from selftrain.stage import ArtifactRef, Context
from selftrain.stages import evaluate as stage
from selftrain.stages.evaluate import EVALUATE, EvaluateSlice
from selftrain.store.store import Store
from tasks.run import Run
from tasks.stages import evaluate
from tests.command import selftrain
from tests.selftrain.conftest import make_instruct, make_problems
from tests.selftrain.stages.test_versions import PROBLEMS, pool, write_pool

PROMPT = "def add(n):  # n + 7\n"
CANDIDATES = ["    return n + 7\n", "    return n\n", "", "    pass\n" * 8]


def make_reward_model(folder: Path, labels: int = 1) -> Path:
    """A tiny classifier of random weights whose tokenizer has a chat template."""
    make_instruct(folder)
    torch.manual_seed(1)
    model = load_classifier(folder, fresh_head=True, random_head=True)
    if labels != 1:
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels)
    model.config.pad_token_id = load_tokenizer(folder).pad_token_id
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reward_model(tmp_path_factory.mktemp("reward-model"))


def scored(folder: Path, text: str) -> float:
    """The model's score of one text, by transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        return float(model(input_ids=ids["input_ids"]).logits)


def test_it_reads_a_conversation_in_its_own_template(folder: Path):
    found = next(RewardModel.load(folder).score_many([(PROMPT, CANDIDATES)], exact=True))
    texts = [f"<sep>user\n{PROMPT}<turn>\n<sep>assistant\n{text}<turn>\n" for text in CANDIDATES]
    assert found == pytest.approx([scored(folder, text) for text in texts], rel=1e-4)
    assert len(set(found)) == 4
    assert found != pytest.approx(
        next(Reranker.load(folder).score_many([(PROMPT, CANDIDATES)], exact=True)), rel=1e-4
    )


def test_without_a_template_it_reads_prompt_and_completion(reranker: Path):
    expected = next(Reranker.load(reranker).score_many([(PROMPT, CANDIDATES)], exact=True))
    assert next(RewardModel.load(reranker).score_many([(PROMPT, CANDIDATES)], exact=True)) == expected


def evaluation(config: EvaluateConfig, folder: Path) -> Any:
    """The step `evaluate` of a run."""
    run = Run(RunConfig(evaluate=config), Store(str(folder / "store")))
    ref = ArtifactRef("made", "0" * 32)
    evaluate(run, ref, {"sft": (ref, ref)}, {"rm-1": ref})
    return run.steps["evaluate"]


def test_the_key_has_a_models_content_and_not_its_place(folder: Path, tmp_path: Path):
    copied = make_reward_model(tmp_path / "copy")
    changed = make_reward_model(tmp_path / "changed")
    (changed / "chat_template.jinja").write_text("{{ messages[1].content }}")

    def key(**models: Path) -> str:
        config = EvaluateConfig(reward_models={name: str(place) for name, place in models.items()})
        return str(evaluation(config, tmp_path).ref)

    assert key(other=folder) == key(other=copied)
    assert len({key(), key(other=folder), key(another=folder), key(other=changed)}) == 4
    before = EvaluateSlice(
        seed=RunConfig().seed, evaluate=EvaluateConfig(), pools=("sft",), rerankers=("rm-1",)
    )
    assert key() == str(EVALUATE.ref(before, **evaluation(EvaluateConfig(), tmp_path).inputs))


def test_a_hub_model_is_taken_at_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    commit = "a" * 40
    config = EvaluateConfig(reward_models={"other": f"owner/name@{commit}"})
    assert reward_model_digests(config) == {"other": commit}
    assert (model_at("owner/name").base, model_at("owner/name").revision) == ("owner/name", None)
    asked = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert reward_model_folder(f"owner/name@{commit}", commit) == tmp_path
    assert (asked["name"], asked["revision"]) == ("owner/name", commit)
    assert not [pattern for pattern in asked["allow_patterns"] if pattern in ("*", "*.bin", "*.pt", "*.py")]


def test_an_evaluation_ranks_by_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It ranks alone, with the log-probability, and in comparisons; the recommended ranker is the run's own."""
    write_pool(tmp_path)
    passes = {row.id: float(row.sample == 0) for row in pool()}
    jobs = []

    def scores(context: Context, found: Any) -> dict[str, Scores]:
        jobs.extend((job.name, job.foreign, context.inputs[job.reranker]) for job in found)
        return {
            job.name: Scores.made({id: score if job.foreign else -score for id, score in passes.items()})
            for job in found
        }

    monkeypatch.setattr(stage, "score_candidates", scores)
    settings = EvaluateConfig(bootstrap=50, control=False, reward_models={"other": str(folder)})
    config = EvaluateSlice(
        seed=1,
        evaluate=settings,
        pools=("sft",),
        rerankers=("rm-1",),
        reward_models=reward_model_digests(settings),
    )
    inputs = {
        "problems": tmp_path,
        "sft.candidates": tmp_path,
        "sft.executions": tmp_path,
        "rm-1": tmp_path / "rm",
    }
    EVALUATE.run(Context(config, inputs, tmp_path, RuntimeConfig(), lambda **_: None))
    assert jobs == [("sft/other", True, folder), ("sft/rm-1", False, tmp_path / "rm")]
    result = json.loads((tmp_path / "evaluation.json").read_text())
    rankers = result["evaluation"]["pools"]["sft"]["overall"]["rankers"]
    assert list(rankers) == ["other", "other+logprob", "rm-1", "rm-1+logprob"]
    assert (rankers["other"]["value"], rankers["rm-1"]["value"]) == (1.0, 0.0)
    assert "sft/other-random" in {row["name"] for row in result["evaluation"]["comparisons"]}
    assert result["chosen"].startswith("rm-1")
    assert set(result["logprob_weights"]) == {"other", "rm-1"}
    assert len(read_scores(tmp_path, "sft")["other"]) == len(pool())
    assert len(PROBLEMS) == 9


def test_scoring_processes_read_what_a_reward_model_reads(folder: Path, problems: Path, tmp_path: Path):
    first = next(problem for problem in make_problems() if problem.split == "rl")
    rows = [
        Candidate(f"{first.id}#{at}", first.id, at, text, (), 0.0, "stop")
        for at, text in enumerate(CANDIDATES)
    ]
    write_records(tmp_path / "candidates.parquet", rows, Candidate)
    inputs = {"problems": problems, "pool": tmp_path, "other": folder}
    context = Context(None, inputs, tmp_path, RuntimeConfig(processes=1), lambda **_: None)
    jobs = [stage.Job(name, "other", "pool", ("rl",), foreign=True) for name in ("one", "two")]
    found = stage.score_candidates(context, jobs)
    expected = next(RewardModel.load(folder).score_many([(first.prompt, CANDIDATES)], exact=True))
    assert list(found["one"].values()) == pytest.approx(expected, rel=1e-5)
    assert found["two"] == found["one"]


def config(**models: str) -> RunConfig:
    return RunConfig(evaluate=EvaluateConfig(reward_models=models))


def test_what_is_no_reward_model_is_told_before_anything_runs(folder: Path, instruct: Path, tmp_path: Path):
    check(config(other=str(folder)))
    with pytest.raises(
        UsageError, match=r"evaluate\.reward_models\.other: .*expected a reward model.*LlamaForCausalLM"
    ):
        check(config(other=str(instruct)))
    with pytest.raises(UsageError, match="expected one label"):
        check(config(other=str(make_reward_model(tmp_path / "two", labels=2))))
    broken = make_reward_model(tmp_path / "broken")
    (broken / "chat_template.jinja").write_text("{{ raise_exception('no users here') }}")
    with pytest.raises(UsageError, match="chat template of the reward model fails: no users here"):
        check(config(other=str(broken)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"evaluate\.reward_models\.other: .*holds no model"):
        evaluation(EvaluateConfig(reward_models={"other": str(tmp_path / "empty")}), tmp_path)
    assert module.model_at(str(folder)).base == str(folder)


@pytest.mark.parametrize(
    "name", ["rm-1", "random", "oracle", "champion", "a+logprob", "a/b", "a~shuffled", "", "A b"]
)
def test_names_that_mean_something_else_are_refused(name: str):
    with pytest.raises(ValidationError, match=r"reward_models"):
        EvaluateConfig(reward_models={name: "owner/name"})


def test_a_missing_model_is_one_line_and_exit_code_2(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text(
        f"name: other\nstore: {tmp_path / 'store'}\nruntime: {{backend: process, allow_no_isolation: true}}\n"
        "evaluate: {reward_models: {other: ./not/here}}\n"
    )
    done = selftrain("run", str(file), "--dry-run")
    assert done.returncode == 2
    assert re.search(r"evaluate\.reward_models\.other: './not/here' is no folder here", done.stderr)
    assert "Traceback" not in done.stderr
