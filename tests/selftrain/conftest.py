"""Fixtures: a tiny generator, a tiny reranker and a few problems, created once per session."""

from pathlib import Path

import pytest

from selftrain.config import ModelConfig
from selftrain.records import Problem, write_records

TINY = ModelConfig(vocabulary=280, hidden_size=16, layers=2, heads=2, max_tokens=96)


def make_problems() -> list[Problem]:
    """Eight problems to learn from, six of rl, two of each other split."""
    splits = ["sft"] * 8 + ["rl"] * 6 + ["validation"] * 2 + ["test"] * 2
    return [
        Problem(
            id=f"add-{at}.py",
            task=f"add-{at}",
            language="py",
            prompt=f"def add{'x' * (at % 3)}(n):  # n + {at}\n",
            tests=f"assert add(1) == {at + 1}\n",
            split=split,
            source="made",
            stop_tokens=("\ndef",),
            response=f"    return n + {at}\n" if split == "sft" else None,
        )
        for at, split in enumerate(splits)
    ]


@pytest.fixture(scope="session")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like stage `prepare`'s, with `make_problems`."""
    folder = tmp_path_factory.mktemp("problems")
    write_records(folder / "problems.parquet", make_problems(), Problem)
    return folder


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a generator whose distributions are far from uniform and from certain."""
    import torch

    from selftrain.models.models import make_tiny, train_tokenizer

    folder = tmp_path_factory.mktemp("generator")
    tokenizer = train_tokenizer([p.prompt + (p.response or "") for p in make_problems()], TINY.vocabulary)
    torch.manual_seed(0)
    model = make_tiny(TINY, tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(12)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reranker(generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reranker: the generator's body under a score head of its own."""
    import torch

    from selftrain.models.models import load_classifier, load_tokenizer

    folder = tmp_path_factory.mktemp("reranker")
    tokenizer = load_tokenizer(generator)
    torch.manual_seed(1)
    model = load_classifier(generator, fresh_head=True)
    model.config.pad_token_id = tokenizer.pad_token_id
    with torch.no_grad():
        model.score.weight.normal_(std=50 * (model.score.in_features + 1) ** -0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


CHAT_TEMPLATE = (
    "{% for one in messages %}{{ '<sep>' + one.role + '\\n' + one.content + '<turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<sep>assistant\\n' }}{% endif %}"
)
"""A chat template whose turns end with a token of their own."""


@pytest.fixture(scope="session")
def instruct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `make_instruct`."""
    return make_instruct(tmp_path_factory.mktemp("instruct"))


def make_instruct(folder: Path) -> Path:
    """Write an untrained model with a chat template; its tokenizer knows the words of `make_problems` as question and answer."""
    import torch

    from selftrain.models.models import make_tiny, train_tokenizer
    from selftrain.problems.chat import answer, question

    texts = [
        text
        for p in make_problems()
        for text in (question(p.prompt, "py"), answer(p.prompt, p.response or "", "py"))
    ]
    tokenizer = train_tokenizer(texts, 400)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    tiny = ModelConfig(hidden_size=64, layers=2, heads=2, max_tokens=160)
    make_tiny(tiny, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
