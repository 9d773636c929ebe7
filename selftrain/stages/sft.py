"""Stage `sft`: problems -> generator 0, the SFT policy. The work is in `selftrain.training.sft`."""

from selftrain.config import ModelConfig, SftConfig, Strict
from selftrain.launch.launch import launch
from selftrain.stage import Context, Outcome, Stage


class SftSlice(Strict):
    """What the SFT policy depends on, beside the problems. `base_digest`: content of the pretrained weights."""

    seed: int
    model: ModelConfig
    base_digest: str | None
    sft: SftConfig


def run(context: Context) -> Outcome:
    """Reads `problems`; writes a causal language model and its tokenizer."""
    return launch("selftrain.training.sft", context, distributed=True)


SFT = Stage("sft", 3, run, trains=True)
