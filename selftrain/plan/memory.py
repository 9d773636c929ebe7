"""Estimates the peak memory of sampling and scoring processes; `models.footprint` estimates that of training."""

import math

from selftrain.config import RuntimeConfig, SampleConfig
from selftrain.models.footprint import CUDA_LIBRARIES, FLOAT, LIBRARIES, Memory, decoding_bytes, reading_bytes
from selftrain.models.shapes import Shape
from selftrain.rerank.batches import BATCH_TOKENS, OTHER_BATCH_TOKENS
from selftrain.sampling import BATCH


def sampling_memory(
    config: SampleConfig, shape: Shape, runtime: RuntimeConfig, samples: int, prompt: float
) -> Memory:
    """Peak memory of a sampling process.

    samples  completions per problem of a shard
    prompt   tokens of the longest prompt

    With ctranslate2, the first process converts the checkpoint and so has the model twice, as torch tensors and converted.
    Its KV cache is copied when it grows; measured, the peak is 1.75 times the size of the cache.
    """
    rows = min(BATCH, config.shard * samples)
    half = config.engine != "ctranslate2" and (runtime.device == "cuda" or config.compute_type == "bfloat16")
    number = 2 if half else FLOAT
    cache = decoding_bytes(shape, rows, min(prompt + config.max_new_tokens, shape.context), number)
    if config.engine == "ctranslate2":
        weights = 2 * FLOAT * shape.parameters
        return Memory(
            {"libraries": LIBRARIES["sampling"], "weights": weights, "kv cache": round(1.75 * cache)}
        )
    weights = number * shape.parameters
    libraries = LIBRARIES["sampling"] if runtime.device == "cpu" else CUDA_LIBRARIES
    cache += reading_bytes(shape, math.ceil(rows / samples) * prompt)  # equal prompts are read once
    return Memory({"libraries": libraries, "weights": weights, "kv cache": cache})


def scoring_memory(shape: Shape, runtime: RuntimeConfig, rerankers: int = 1) -> Memory:
    """Peak memory of a scoring process, with all `rerankers` loaded, or with its shard of them (`runtime.scoring_shards`)."""
    libraries = LIBRARIES["sampling"] if runtime.device == "cpu" else CUDA_LIBRARIES
    weights = FLOAT * shape.classifier * rerankers
    if runtime.scoring_shards:  # the largest layer is gathered while it computes
        weights = weights // runtime.processes + FLOAT * shape.largest
    tokens = BATCH_TOKENS.get(runtime.device, OTHER_BATCH_TOKENS)
    return Memory(
        {
            "libraries": libraries,
            "weights": weights,
            "activations": reading_bytes(shape, tokens),
            "kv cache": 2 * FLOAT * tokens * shape.kv_elements,  # for the prompts, and for the completions
        }
    )
