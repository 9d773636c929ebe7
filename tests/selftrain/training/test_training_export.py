"""Tests that exported models are ordinary checkpoints, which plain transformers loads without this project."""

import json
import subprocess
import sys

import pytest
import torch

from selftrain.models.models import load_generator
from selftrain.rerank.reranker import Reranker
from tests.command import ROOT
from tests.selftrain.training.made import TEMPLATE

ELSEWHERE = """
import json, sys

root, folders = sys.argv[1], json.loads(sys.argv[2])
sys.path = [path for path in sys.path if path != root]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder)]
try:
    import selftrain.models.models
    raise SystemExit("this project is there")
except ModuleNotFoundError:
    pass

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

prompt, completions = "def add(n):  # n + 3\\n", ["    return n + 3\\n", "    return n\\n", ""]
found = {}
for name, folder in folders.items():
    kind = AutoModelForCausalLM if name.startswith("sft") else AutoModelForSequenceClassification
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, report = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    template = getattr(model.config, "prompt_template", "{prompt}")
    head = tokenizer(template.replace("{prompt}", prompt)).input_ids + [tokenizer.sep_token_id]
    rows = [head + tokenizer(c).input_ids + [tokenizer.eos_token_id] for c in completions]
    with torch.inference_mode():
        logits = [model.eval()(torch.tensor([row])).logits[0].flatten()[-1].item() for row in rows]
    found[name] = {"logits": logits, "prompt_template": template, "rows": rows}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def elsewhere(alone: dict, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a process that cannot import this project reads from the exported folders."""
    folders = {name: str(folder) for name, (folder, _) in alone.items()}
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, str(ROOT), json.dumps(folders)],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", ["reward", "reward-lora"])
def test_scores_elsewhere_are_ours(name: str, alone: dict, elsewhere: dict):
    reranker = Reranker.load(alone[name][0])
    texts = ["    return n + 3\n", "    return n\n", ""]
    [scores] = reranker.score_many([("def add(n):  # n + 3\n", texts)], exact=True)
    assert scores == pytest.approx(elsewhere[name]["logits"], abs=1e-5)
    assert elsewhere[name]["prompt_template"] == (TEMPLATE if name == "reward" else "{prompt}")
    assert len(set(scores)) == 3


@pytest.mark.parametrize("name", ["sft", "sft-lora"])
def test_generators_elsewhere_are_ours(name: str, alone: dict, elsewhere: dict):
    model = load_generator(alone[name][0]).eval()
    with torch.inference_mode():
        ours = [model(torch.tensor([row])).logits[0].flatten()[-1].item() for row in elsewhere[name]["rows"]]
    assert ours == pytest.approx(elsewhere[name]["logits"], abs=1e-5)


def test_nothing_but_a_model_and_its_tokenizer_is_exported(alone: dict):
    for name, (folder, outcome) in alone.items():
        found = {path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".parquet"}
        wanted = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
        assert found - {"generation_config.json"} == wanted, name
        assert "peft" not in (folder / "config.json").read_text()
        assert outcome["metrics"]["steps"] >= 8
