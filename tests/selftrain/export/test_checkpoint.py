"""Tests of the exported checkpoint: plain transformers, TRL and scripts like RewardBench's get the reranker's own scores from it."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast, pipeline

from selftrain import Reranker
from selftrain.errors import UsageError
from selftrain.export.checkpoint import Exact, drop_in_tokenizer, write_checkpoint
from selftrain.models.models import load_tokenizer
from selftrain.models.prompts import style_of
from tests.selftrain.models.test_tokenizers import cleaning, legacy, metaspace, our_own, prefixed_bytes

TEMPLATES = ["{prompt}", "# Task:\n{prompt}\n# Answer:\n", '<end>user\n"q" {x} \\n é😀```\n{prompt}']
PROBLEMS = [
    ("def add(n):  # n + 7\n", ["    return n + 7\n", "    return n\n", " ", "    pass\n" * 8, "\n    x"]),
    ('if x:\n    """ total += value , 1 """\n    ', ["return [a, b]", "    y = {}\n\n", "\té"]),
]
PAIRS = [(prompt, text) for prompt, texts in PROBLEMS for text in texts]
SCORED = [
    ("def add(n):  # n + 7\n", ["    return n + 7", "    return n", "    pass\n" * 7 + "    pass"]),
    ("if x:\n", ["    return [a, b]", "    y = {}", "\té"]),
]
"""Prompts and completions in the normal form."""
SCORED_PAIRS = [(prompt, text) for prompt, texts in SCORED for text in texts]


def with_start(folder: Path) -> None:
    """As CodeLlama's, which also puts a start token before each text."""
    metaspace(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


EXACT = {
    our_own: Exact(template=True, pair=True),
    cleaning: Exact(template=True, pair=True),
    metaspace: Exact(template=True, pair=False),
    legacy: Exact(template=True, pair=False),
    with_start: Exact(template=True, pair=False),
    prefixed_bytes: Exact(template=False, pair=False),
}
"""A second text begins with a blank in the tokenizers that put one before each text; bytes put one behind a special token too."""


def conversation(prompt: str, completion: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]


@pytest.mark.parametrize("template", TEMPLATES, ids=["bare", "framed", "conversation"])
@pytest.mark.parametrize("pad", ["own", "end"])
@pytest.mark.parametrize("make", EXACT, ids=lambda make: make.__name__)
def test_chat_template_and_pairs_give_the_rerankers_token_ids(
    make: Callable[[Path], None], pad: str, template: str, tmp_path: Path
):
    make(tmp_path / "own")
    tokenizer = load_tokenizer(tmp_path / "own")
    if pad == "end":
        tokenizer.pad_token = tokenizer.eos_token
    drop_in, exact = drop_in_tokenizer(tokenizer, template, 96)
    assert exact == EXACT[make]
    drop_in.save_pretrained(tmp_path / "new")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "new")
    reranker = Reranker(SimpleNamespace(config=SimpleNamespace(prompt_template=template)), tokenizer)
    rows = [row for found in reranker.encode(PROBLEMS) for row in found]
    if tokenizer.pad_token_id == tokenizer.eos_token_id:  # the score is read before the end token
        rows = [row[:-1] for row in rows]
    if exact.template:  # which leaves out blanks at a completion's end, as the normal form does
        stripped = reranker.encode([(prompt, [text.rstrip() for text in some]) for prompt, some in PROBLEMS])
        own = [
            row[: len(row) - (tokenizer.pad_token_id == tokenizer.eos_token_id)] for row in chain(*stripped)
        ]
        texts = [loaded.apply_chat_template(conversation(*pair), tokenize=False) for pair in PAIRS]
        assert loaded(texts, add_special_tokens=False)["input_ids"] == own
    if exact.pair:
        # As vLLM's /score and CrossEncoder encode pairs; a column of other ids would be passed on to the model.
        found = loaded(text=[prompt for prompt, _ in PAIRS], text_pair=[text for _, text in PAIRS])
        assert found["input_ids"] == rows
        assert set(found) == {"input_ids", "attention_mask"}
    assert loaded("x = 1\n")["input_ids"] == tokenizer("x = 1\n")["input_ids"], (
        "one text is encoded as before"
    )


def test_the_template_takes_one_prompt_and_one_completion(tmp_path: Path):
    our_own(tmp_path)
    found, _ = drop_in_tokenizer(load_tokenizer(tmp_path), "{prompt}", None)
    asked, answered = conversation("a\n", "  b\n")
    system = {"role": "system", "content": "You write code."}

    def render(*messages: dict[str, str]) -> str:
        return str(found.apply_chat_template(list(messages), tokenize=False))

    assert render(asked, answered) == "a\n<sep>  b<end>"
    assert render(system, asked, answered) == "a\n<sep>  b<end>"
    assert render(asked) == "a\n<sep>"
    assert render({"role": "query", "content": "a"}, {"role": "document", "content": "b"}) == "a<sep>b<end>"
    for wrong in ([answered], [asked, answered, asked], [asked, asked], [system]):
        with pytest.raises(Exception, match="one message of the user"):
            render(*wrong)


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_the_prompt_style_stays(style: str, tmp_path: Path):
    """A reranker of a chat model brings candidates into another normal form."""
    our_own(tmp_path / "own")
    tokenizer = load_tokenizer(tmp_path / "own")
    tokenizer.init_kwargs["prompt_style"] = style
    drop_in_tokenizer(tokenizer, "{prompt}", None)[0].save_pretrained(tmp_path / "new")
    assert style_of(load_tokenizer(tmp_path / "new")) == style


def test_a_tokenizer_without_the_library_is_refused():
    class Slow:
        special_tokens_map: ClassVar[dict[str, str]] = {}
        eos_token_id, pad_token_id, sep_token_id, eos_token, sep_token, bos_token = (
            1,
            0,
            None,
            "e",
            None,
            None,
        )

        def __call__(self, text: Any, **_: Any) -> dict[str, Any]:
            return {"input_ids": [5] if isinstance(text, str) else [[5] for _ in text]}

        def decode(self, *_: Any, **__: Any) -> str:
            return ""

    with pytest.raises(UsageError, match=r"a Slow has no tokenizer\.json"):
        drop_in_tokenizer(Slow(), "{prompt}", None)


@pytest.fixture(scope="module", params=TEMPLATES[:2], ids=["bare", "framed"])
def exported(
    request: pytest.FixtureRequest, reranker: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[float]]:
    """The exported tiny reranker with a prompt template, and the reranker's own scores of SCORED_PAIRS."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("exported")
    for path in reranker.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text()) | {
        "prompt_template": request.param,
        "_name_or_path": "/home/someone/model",
    }
    (source / "config.json").write_text(json.dumps(config))
    assert write_checkpoint(source, folder) == Exact(template=True, pair=True)
    scores = [score for found in Reranker.load(source).score_many(SCORED) for score in found]
    assert max(scores) - min(scores) > 0.1
    return folder, scores


def test_the_exported_reranker_is_the_reranker(exported: tuple[Path, list[float]]):
    folder, expected = exported
    found = Reranker.load(folder).score_many(SCORED)
    assert [score for scores in found for score in scores] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    config = json.loads((folder / "config.json").read_text())
    assert (config["problem_type"], config["num_labels"], config["use_sep_token"]) == ("regression", 1, True)
    assert not [path for path in folder.glob("*.json") if "/home/someone" in path.read_text()]
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors", ".jinja"}


def test_the_pipeline_of_transformers_gives_its_scores(exported: tuple[Path, list[float]]):
    folder, expected = exported
    scorer = pipeline("text-classification", model=str(folder), device="cpu")
    rows = scorer([{"text": prompt, "text_pair": text} for prompt, text in SCORED_PAIRS])
    assert [row["score"] for row in rows] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_scripts_like_rewardbenchs_get_its_scores(exported: tuple[Path, list[float]]):
    """They render conversations first, and then call the pipeline in batches that are padded on the left."""
    folder, expected = exported
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    texts = [tokenizer.apply_chat_template(conversation(*pair), tokenize=False) for pair in SCORED_PAIRS]
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    scorer = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    rows = scorer(
        texts,
        batch_size=4,
        truncation=False,
        padding=True,
        max_length=512,
        function_to_apply="none",
        return_token_type_ids=False,
    )
    assert [row["score"] for row in rows] == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_trl_takes_the_folder_as_its_reward(
    exported: tuple[Path, list[float]], instruct: Path, tmp_path: Path
):
    """One step of GRPO on conversations, whose rewards are our scores of what it sampled; then SCORED_PAIRS, and them as plain strings."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    folder, expected = exported
    arguments = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
    )
    rows = [{"prompt": [{"role": "user", "content": prompt}]} for prompt, _ in SCORED]
    trainer = GRPOTrainer(
        model=str(instruct), reward_funcs=str(folder), args=arguments, train_dataset=Dataset.from_list(rows)
    )
    seen: list[tuple[Any, Any, Any]] = []
    own = trainer._calculate_rewards

    def spy(inputs: Any, prompts: Any, completions: Any, ids: Any) -> Any:
        rewards = own(inputs, prompts, completions, ids)
        seen.append((prompts, completions, rewards))
        return rewards

    trainer._calculate_rewards = spy
    trainer.train()
    reranker = Reranker.load(folder)
    [(prompts, completions, rewards)] = seen
    pairs = [
        (prompt[-1]["content"], [completion[0]["content"]])
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    pairs = [(prompt, [text.rstrip()]) for prompt, [text] in pairs]  # random texts have no other normal form
    ours = [score for [score] in reranker.score_many(pairs, exact=True)]
    assert len(ours) == 4
    assert rewards[:, 0].tolist() == pytest.approx(ours, abs=1e-4)

    def rewarded(prompts: list[Any], completions: list[Any]) -> list[float]:
        with torch.inference_mode():
            return own([{} for _ in prompts], prompts, completions, [[] for _ in prompts])[:, 0].tolist()

    messages = [conversation(prompt, f"{text}\n") for prompt, text in SCORED_PAIRS]
    found = rewarded([pair[:1] for pair in messages], [pair[1:] for pair in messages])
    assert found == pytest.approx(expected, abs=1e-4)
    plain = rewarded([prompt for prompt, _ in SCORED_PAIRS], [text for _, text in SCORED_PAIRS])
    assert plain != pytest.approx(expected, abs=1e-2), "plain strings have neither separator nor end"
