"""Reduces shipped configs to a size that runs here, with their own settings, classes and code paths.

`make_hub` creates what the configs name on the hub, as folders in the hub's layout: models of the same classes with some ten
thousand parameters, and data sets of invented problems in their own formats. `shrink` makes a config read these folders, and
reduces its counts, lengths and batches. Two things cannot be tested here: GPUs, which are replaced by CPU processes on gloo
(two of them if the config has more than one), and vLLM, which is replaced by engine `hf`.
"""

import itertools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selftrain.config import BankConfig, MixedConfig, RunConfig
from selftrain.problems.contests import contest_prompt
from selftrain.problems.splits import split_of
from tests.selftrain.problems.made import py_row, sh_row

LANGUAGES = ("py", "sh")
CONTESTS, MULTIPL_E = "deepmind/code_contests", "nuprl/MultiPL-E"
WORDS = (
    "apple", "bridge", "candle", "dragon", "engine", "forest", "garden", "harbour", "island", "jungle", "kettle", "ladder",
    "mirror", "needle", "orchard", "pillow", "quarry", "ribbon", "saddle", "temple", "umbrella", "valley", "window", "yacht",
)  # fmt: skip

# What is in the models' config.json on the hub, but for the sizes.
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 16,
    "intermediate_size": 40,
    "max_position_embeddings": 512,
    "model_type": "llama",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"factor": 4.0, "type": "linear"},
    "rope_theta": 100000,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 16,
    "intermediate_size": 40,
    "max_position_embeddings": 512,
    "max_window_layers": 2,
    "model_type": "qwen2",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 512,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
}
MODELS = {
    "deepseek-ai/deepseek-coder-1.3b-instruct": (LLAMA, "<|EOT|>", True),
    "deepseek-ai/deepseek-coder-6.7b-instruct": (LLAMA, "<|EOT|>", True),
    "Qwen/Qwen2.5-Coder-0.5B": (QWEN2, "<|endoftext|>", False),
}
"""By name on the hub: the model's config, its tokenizer's end token, and whether that begins texts with a token of its own."""

RIGHT_AND_WRONG = {
    "contest": ("print(2 * int(input()))\n", "print(int(input()))\n"),
    "py": ("    return 2 * n\n", "    return n\n"),
    "sh": ("    echo $((2 * $1))\n", "    echo $1\n"),
}
"""What the models know to write."""


def make_hub(folder: Path) -> dict[str, Path]:
    """What the shipped configs name on the hub: name -> folder."""
    places = {name: folder / name for name in (*MODELS, CONTESTS, MULTIPL_E)}
    write_set(places[CONTESTS], {("default", "train"): [contest(at) for at in range(120)]})
    multipl_e = {}
    for kind, numbers in (("mbpp", range(200, 224)), ("humaneval", range(300, 304))):
        for language, row in (("py", py_row), ("sh", sh_row)):
            rows = [row(f"{kind}_{at}", description(at)) for at in numbers]
            multipl_e[f"{kind}-{language}", "test"] = rows
    write_set(places[MULTIPL_E], multipl_e)
    done: dict[int, Path] = {}
    for name, (settings, end, begins) in MODELS.items():
        twin = done.setdefault(id(settings), places[name])
        if twin == places[name]:
            make_model(twin, settings, end, begins)
        places[name] = twin
    return places


def description(at: int) -> str:
    """The text of problem number `at`; no two are alike."""
    one, other = divmod(at, len(WORDS))
    return f"Double the {WORDS[one]} that the {WORDS[other]} has under number {at}."


def contest(at: int) -> dict[str, Any]:
    """A row of CodeContests: print twice the number that is read."""
    numbers = (at, 3 * at + 1)
    tests = {"input": [f"{n}\n" for n in numbers], "output": [f"{2 * n}\n" for n in numbers]}
    none: dict[str, list[Any]] = {"input": [], "output": []}
    return {
        "name": f"contest {at}",
        "description": description(at),
        "public_tests": tests,
        "private_tests": {"input": ["50\n"], "output": ["100\n"]} if at % 2 else tests,
        "generated_tests": tests if at else none,
        # Every other one is wrong, so that both kinds are learnt; alone in its row, or the row would not be kept.
        "solutions": {"language": [3], "solution": [RIGHT_AND_WRONG["contest"][at % 2]]},
        "input_file": "",
    }


def write_set(folder: Path, rows: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """A data set in the hub's layout. `rows`: by subset and split."""
    card = ["---", "configs:"]
    for (subset, split), content in rows.items():
        path = folder / subset / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(content), path)
        card += [f"- config_name: {subset}", "  data_files:", f"  - split: {split}"]
        card += [f"    path: {subset}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))


def make_model(folder: Path, settings: dict[str, Any], end: str, begins: bool) -> None:
    """A model of `settings` and its tokenizer, which writes right and wrong answers to problems such as these."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from selftrain.models.models import encode_completion, encode_prompt, load_tokenizer, pad

    rng = random.Random(0)
    texts = list(itertools.islice(known(rng), 512))
    make_tokenizer([text for pair in texts for text in pair], end, begins).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(folder)  # of the model type's own class, which splits words its own way
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    content = settings | ids | {"vocab_size": len(tokenizer) + 10}  # as on the hub: more rows than tokens
    (folder / "config.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rows = [(encode_prompt(tokenizer, a), encode_completion(tokenizer, b)) for a, b in texts]
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 300)
        batch = rng.sample(rows, 16)
        labels = pad([[-100] * len(head) + tail for head, tail in batch], -100)
        inputs = pad([head + tail for head, tail in batch], tokenizer.eos_token_id)
        model(input_ids=inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.to(torch.bfloat16).save_pretrained(folder)


def known(rng: random.Random) -> Any:
    """Prompts, such as those of the problems but none of them, with an answer."""
    for at in itertools.count(400):
        text = description(at % 500)
        prompts = {
            "contest": contest_prompt(text, "py"),
            "py": py_row("", text)["prompt"],
            "sh": sh_row("", text)["prompt"],
        }
        kind = rng.choice(list(prompts))
        yield prompts[kind], rng.choice(RIGHT_AND_WRONG[kind])


def make_tokenizer(texts: list[str], end: str, begins: bool) -> Any:
    """A byte-level BPE without a separator, as the models of the hub have."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    begin = "<|begin|>"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[begin, end], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    if begins:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A $B", special_tokens=[(begin, 0)]
        )
    named = {"bos_token": begin} if begins else {}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end, pad_token=end, **named)


# The shrinking


def shrink(config: RunConfig, places: dict[str, Path], store: Path, rounds: int) -> RunConfig:
    """`config` with `places` for names on the hub and `rounds` rounds, tiny in all that is a size."""

    def local(name: str | None) -> str | None:
        return None if name is None else str(places.get(name, name))

    sizes = {
        "problems": _problems(config, places),
        "model": {"base": local(config.model.base)}
        | {"vocabulary": 512, "hidden_size": 64, "layers": 2, "heads": 2},
        "sft": _batches(config.sft)
        | ({"max_tokens": 256} if config.model.base else {"batch_size": 16, "micro_batch_size": 8}),
        "sample": {"max_new_tokens": 32, "rl": 6, "evaluation": 4, "shard": 16}
        | {"engine": "hf" if config.sample.engine == "vllm" else config.sample.engine},
        "reward": _batches(config.reward)
        | {"base": local(config.reward.base), "max_tokens": 256}
        | {"holdout": config.reward.holdout and 0.5},  # of so few problems that a small share may be none
        "ppo": {"steps": 2, "rollout_batch": 8, "mini_batch": 4, "micro_batch": 2, "checkpoint_steps": 1}
        | {"probe": min(config.ppo.probe, 2), "probe_steps": 1}
        | {"engine": "hf" if config.ppo.engine == "vllm" else config.ppo.engine},
        "evaluate": {"bootstrap": 50},
        "runtime": {
            "processes": min(config.runtime.processes, 2),
            "threads": 1,
            "workers": 2,
            "device": "cpu",
        }
        | {"gradient_checkpointing": config.runtime.device == "cuda"}  # as on GPUs
        | {"backend": "process", "allow_no_isolation": True},  # these models' programs are known
    }
    values = config.model_dump(mode="json") | {"store": str(store), "rounds": rounds}
    for name, changes in sizes.items():
        values[name] |= changes
    return RunConfig.model_validate(values)


def _batches(config: Any) -> dict[str, Any]:
    """Batches and intervals of SFT or of the reward model."""
    return {
        "batch_size": 4,
        "micro_batch_size": min(config.micro_batch_size, 2),
        "warmup_steps": 1,
        "evaluation_steps": config.evaluation_steps and 2,
        "checkpoint_steps": 3,
    }


def _problems(config: RunConfig, places: dict[str, Path]) -> dict[str, Any]:
    """Fewer problems: of the bank by its sizes, of parts of a mix by leaving tasks out."""
    problems = config.problems
    if isinstance(problems, BankConfig):
        # The fewest from which a model that begins with nothing learns to be right now and then.
        return {"lengths": [1], "sizes": {"sft": 800, "rl": 24, "validation": 6, "test": 8}}
    assert isinstance(problems, MixedConfig)
    parts = []
    for part in problems.parts:
        values = part.model_dump(mode="json")
        values["languages"] = [language for language in LANGUAGES if language in part.languages]
        values["hub"] = str(places[values["hub"]])
        names = [f"mbpp_{at}" for at in range(200, 224)]
        if values["source"] == "contests":
            names = [f"contest {at}" for at in range(120)]
        wanted = Counter(sft=12, rl=10, validation=3)
        for name in names if values["train"] else ():
            split = split_of(name, part.shares, part.seed + problems.seed + config.seed)
            wanted[split] -= 1
            if wanted[split] < 0:
                values["exclude"] = [*values["exclude"], name]
        parts.append(values)
    return {"parts": parts}
