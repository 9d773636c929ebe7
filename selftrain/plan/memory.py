"""Memory of a sampling and of a scoring process at its peak; a training process's is in `footprint`."""

from selftrain.config import RuntimeConfig, SampleConfig
from selftrain.models.footprint import CUDA_LIBRARIES, FLOAT, LIBRARIES, Memory, decoding_bytes, reading_bytes
from selftrain.models.shapes import Shape
from selftrain.rerank.batches import BATCH_TOKENS, OTHER_BATCH_TOKENS
from selftrain.sampling import BATCH


def sampling_memory(
    config: SampleConfig, shape: Shape, runtime: RuntimeConfig, samples: int, prompt: float
) -> Memory:
    """A sampling process: `samples` for each of a shard's problems, whose longest prompt has `prompt` tokens.

    ctranslate2's first process converts the checkpoint: the model as torch has it, and a copy. Its cache grows by copying
    (measured: by three quarters more than it holds).
    """
    rows = min(BATCH, config.shard * samples)
    cache = decoding_bytes(shape, rows, min(prompt + config.max_new_tokens, shape.context), runtime)
    if config.engine == "ctranslate2":
        weights = 2 * FLOAT * shape.parameters
        return Memory(
            {"libraries": LIBRARIES["sampling"], "weights": weights, "kv cache": round(1.75 * cache)}
        )
    weights = (FLOAT if runtime.device == "cpu" else 2) * shape.parameters
    libraries = LIBRARIES["sampling"] if runtime.device == "cpu" else CUDA_LIBRARIES
    cache += reading_bytes(shape, rows * prompt)
    return Memory({"libraries": libraries, "weights": weights, "kv cache": cache})


def scoring_memory(shape: Shape, runtime: RuntimeConfig, rerankers: int = 1) -> Memory:
    """A scoring process, which keeps all its rerankers, or its shards of them."""
    libraries = LIBRARIES["sampling"] if runtime.device == "cpu" else CUDA_LIBRARIES
    weights = FLOAT * shape.classifier * rerankers
    if runtime.scoring_shards:  # and the largest layer, whole while it is used
        weights = weights // runtime.processes + FLOAT * shape.largest
    tokens = BATCH_TOKENS.get(runtime.device, OTHER_BATCH_TOKENS)
    return Memory(
        {
            "libraries": libraries,
            "weights": weights,
            "activations": reading_bytes(shape, tokens),
            "kv cache": 2 * FLOAT * tokens * shape.kv_elements,  # of the prompts, and of the rows behind them
        }
    )
