"""Stage `sft`: problems -> the SFT policy, the first generator. The work is in `selftrain.training.sft`."""

from selftrain.config import ModelConfig, SftConfig, Strict
from selftrain.launch.launch import launch
from selftrain.stage import Context, Outcome, Stage


class SftSlice(Strict):
    """What the SFT policy depends on besides the problems. `base_digest`: sha256 or hub commit of pretrained weights, or None."""

    seed: int
    model: ModelConfig
    base_digest: str | None
    sft: SftConfig


def run(context: Context) -> Outcome:
    """Reads `problems`; writes a causal language model and its tokenizer."""
    return launch("selftrain.training.sft", context, distributed=True)


SFT = Stage("sft", 4, run, trains=True)
