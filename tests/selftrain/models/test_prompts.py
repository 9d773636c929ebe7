"""Tests of the token ids of problems and answers in both prompt styles."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from selftrain.cache_key import canonical_json
from selftrain.config import ModelConfig, RunConfig
from selftrain.errors import UsageError
from selftrain.models.models import (
    encode_completion,
    encode_prompt,
    end_ids,
    fill_template,
    load_generator,
    load_tokenizer,
)
from selftrain.models.prompts import (
    check_chat,
    encode_answers,
    encode_problem,
    reranker_template,
    set_style,
    style_of,
)
from selftrain.models.weights import base_digest
from selftrain.plan.suitable import check
from selftrain.sampling import Sample
from selftrain.sampling.run import candidate
from selftrain.sampling.stopping import Stopping, stop_texts
from selftrain.store.store import Store
from selftrain.training import sft
from selftrain.training.ppo.translate import translation
from tasks.run import Run
from tests.command import selftrain
from tests.selftrain.conftest import make_problems

PROMPT = "# n + 1\ndef add(n):\n"
ASKED = (
    "<sep>user\nComplete this Python code. Answer with one code block that contains the whole program, including the code "
    "below, without tests and examples.\n\n```python\n# n + 1\ndef add(n):\n```<turn>\n<sep>assistant\n"
)


@pytest.fixture
def chat(instruct: Path) -> Any:
    """The tokenizer of `instruct`, in style `chat`."""
    tokenizer = load_tokenizer(instruct)
    set_style(tokenizer, "chat")
    return tokenizer


def test_a_completion_is_encoded_as_before(generator: Path):
    tokenizer = load_tokenizer(generator)
    assert style_of(tokenizer) == "completion"
    assert encode_problem(tokenizer, PROMPT, "py") == encode_prompt(tokenizer, PROMPT)
    rows = encode_answers(tokenizer, PROMPT, ["    return n\n", ""], "py")
    assert rows == [encode_completion(tokenizer, "    return n\n"), encode_completion(tokenizer, "")]
    assert reranker_template(tokenizer, "{prompt}") == "{prompt}"


def test_a_question_is_in_the_tokenizers_own_template_and_an_answer_ends_the_turn(chat: Any):
    row = sft.tokens(chat, PROMPT, "    return n + 1\n", "py")
    head = row["labels"].count(-100)
    assert chat.decode(row["input_ids"][:head]) == ASKED
    assert row["input_ids"][:head] == encode_problem(chat, PROMPT, "py")
    assert chat.decode(row["labels"][head:]) == f"```python\n{PROMPT}    return n + 1\n```<turn>"


def test_the_style_goes_with_the_tokenizer_and_ends_turns(chat: Any, instruct: Path, tmp_path: Path):
    assert style_of(load_tokenizer(instruct)) == "completion"
    load_generator(instruct).save_pretrained(tmp_path)
    chat.save_pretrained(tmp_path)
    saved = load_tokenizer(tmp_path)
    assert (style_of(saved), saved.eos_token, saved.pad_token) == ("chat", "<turn>", "<pad>")
    turn, end = saved.convert_tokens_to_ids(["<turn>", "<end>"])
    assert end_ids(saved, tmp_path) == (turn, end)
    set_style(saved, "completion")
    assert style_of(saved) == "completion"


def test_a_reranker_reads_prompt_and_completion_in_one_turn(chat: Any):
    template = reranker_template(chat, "{prompt}")
    assert template == (
        "<sep>user\nWrite the program that the given code begins. Answer with one code block.<turn>\n<sep>assistant\n```\n{prompt}"
    )
    assert reranker_template(chat, "# {prompt}") == "# {prompt}", "a template of one's own is kept"
    chat.bos_token = "<pad>"
    chat.chat_template = "<pad>" + chat.chat_template
    assert reranker_template(chat, "{prompt}") == f"<pad>{template}", "this tokenizer adds no begin token"


def test_a_candidate_is_the_program_in_the_answer_with_the_tokens_of_all_of_it(chat: Any):
    problem = replace(make_problems()[8], prompt=PROMPT, stop_tokens=("\nHere",))
    text = f"Well.\nHere it is:\n```python\n{PROMPT}    return n + 1\n```\nThat adds."
    ids = chat(text, add_special_tokens=False)["input_ids"]
    stopping = Stopping(chat, (chat.eos_token_id,))
    logprobs = [-7.5, *[0.0] * len(ids)]
    assert stop_texts(chat, problem) == (), "a stop text ends no answer"
    row = candidate(stopping, problem, 0, Sample([*ids, chat.eos_token_id], logprobs, True))
    assert (row.completion, row.logprob, row.finish_reason) == ("    return n + 1", -7.5, "stop")
    assert row.token_ids == (*ids, chat.eos_token_id)
    row = candidate(stopping, problem, 0, Sample(ids, logprobs[:-1], False))
    assert (row.completion, row.finish_reason) == ("    return n + 1", "length")


def test_stop_tokens_end_completions_and_not_answers(chat: Any, generator: Path):
    problem = make_problems()[8]
    assert stop_texts(load_tokenizer(generator), problem) == ("\ndef",)
    assert stop_texts(chat, problem) == ()


def test_ppos_reranker_reads_the_completion_and_not_the_answer(chat: Any, tmp_path: Path):
    chat.save_pretrained(tmp_path)
    problem = replace(make_problems()[8], prompt=PROMPT)
    template = reranker_template(chat, "{prompt}")
    settings = LlamaConfig(prompt_template=template)
    translate = translation(chat, (chat.eos_token_id,), tmp_path, settings, [problem])
    assert translate is not None
    head = encode_problem(chat, PROMPT, "py")
    ids = chat(f"Well.\n```python\n{PROMPT}    return n + 1\n```\nBye.", add_special_tokens=False)[
        "input_ids"
    ]
    expected = encode_prompt(chat, fill_template(template, PROMPT)) + encode_completion(
        chat, "    return n + 1"
    )
    assert translate(head, [*ids, chat.eos_token_id]) == expected
    assert translate(head, ids) == expected[:-1], "cut at the longest completion"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('no users') }}", r"fails \(no users\)"),
        ("{{ messages | ", "fails"),
        ("hello", "leaves out the user's message"),
    ],
)
def test_a_template_that_cannot_ask_is_told(chat: Any, template: str | None, told: str):
    chat.chat_template = template
    with pytest.raises(
        UsageError, match=f"model.prompt_style is chat, and the .*of BASE.* {told}.*instruct model"
    ):
        check_chat(chat, "BASE")


def chat_run(base: Path, folder: Path, style: str = "chat") -> RunConfig:
    """A run on `base`."""
    return RunConfig.model_validate(
        {
            "model": {"base": str(base), "prompt_style": style},
            "sft": {"max_tokens": 96},
            "reward": {"max_tokens": 96},
            "sample": {"max_new_tokens": 16},
            "runtime": {"backend": "process", "allow_no_isolation": True},
            "store": str(folder),
        }
    )


def test_it_is_told_before_anything_runs(generator: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="has no chat template"):
        check(chat_run(generator, tmp_path))
    check(chat_run(generator, tmp_path, "completion"))
    with pytest.raises(ValueError, match=r"model.base is null: name an instruct model"):
        RunConfig.model_validate({"model": {"prompt_style": "chat"}})


@pytest.mark.slow
def test_a_dry_run_and_a_plan_tell_it_in_one_line(generator: Path, tmp_path: Path):
    settings = (
        f"model.base={generator}", "model.prompt_style=chat", "sft.max_tokens=96", "reward.max_tokens=96",
        "runtime.allow_no_isolation=true", f"store={tmp_path}",
    )  # fmt: skip
    arguments = ["smoke", *(word for setting in settings for word in ("--set", setting))]
    for command in (["run", *arguments, "--dry-run"], ["plan", *arguments]):
        done = selftrain(*command)
        assert done.returncode == 2, done.stderr[-2000:]
        assert "has no chat template" in done.stderr
        assert "Traceback" not in done.stderr


def test_keys_change_only_where_the_style_is_chat(
    instruct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from flows import method

    monkeypatch.setattr(method, "check_models", lambda run: None)
    slices: dict[str, dict[str, Any]] = {}
    keys: dict[str, dict[str, str]] = {}
    for style in ("completion", "chat"):
        run = Run(chat_run(instruct, tmp_path, style), Store(str(tmp_path)))
        method.method(run)
        keys[style] = {name: step.ref.key for name, step in run.steps.items()}
        slices[style] = {
            name: canonical_json(step.config, name, whole=False)
            for name, step in run.steps.items()
            if name != "report"  # it shows the whole config
        }
    assert "prompt_style" not in str(slices["completion"]), "keys from before the setting stay valid"
    having = {name for name, found in slices["chat"].items() if "prompt_style" in str(found)}
    assert {name.partition("-")[0] for name in having} == {"sft", "execute", "ppo"}
    assert [name for name, key in keys["chat"].items() if key == keys["completion"][name]] == ["prepare"]


def test_a_changed_template_changes_the_key_of_a_chat_model(instruct: Path, tmp_path: Path):
    load_tokenizer(instruct).save_pretrained(tmp_path)
    before = {
        style: base_digest(ModelConfig(base=str(tmp_path), prompt_style=style))
        for style in ("completion", "chat")
    }
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    after = {
        style: base_digest(ModelConfig(base=str(tmp_path), prompt_style=style))
        for style in ("completion", "chat")
    }
    assert after["completion"] == before["completion"]
    assert after["chat"] != before["chat"]
