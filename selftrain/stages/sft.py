"""Stage `sft`: problems -> generator 0, the SFT policy. The work is in `selftrain.training.sft`."""

from selftrain.config import ModelConfig, SftConfig, Strict
from selftrain.launch.launch import launch
from selftrain.stage import Build, Outcome, Stage


class SftSlice(Strict):
    """What the SFT policy depends on, beside the problems. `base_digest`: content of the pretrained weights."""

    seed: int
    model: ModelConfig
    base_digest: str | None
    sft: SftConfig


def build(build: Build) -> Outcome:
    """Reads `problems`; writes a causal language model and its tokenizer."""
    return launch("selftrain.training.sft", build, distributed=True)


SFT = Stage("sft", 3, build, trains=True)
