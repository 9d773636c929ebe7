"""Peak memory of one process, term by term. Imports no torch, so that it can be computed before anything starts.

Terms, bytes:

    libraries    the interpreter and what a training child imports; on a GPU, CUDA's context and kernels
    weights      of the model that is trained
    gradients    with those that DDP keeps in its buckets
    optimizer    AdamW's two moments; under DeepSpeed also its own copy of the weights
    activations  what the forward pass of one micro batch keeps for the backward pass, and the loss's logits
    kv cache     of rollouts and sampling, with the logits of one step
    other models frozen reference, reranker, the rollouts' own copy of the policy
"""

from dataclasses import dataclass, field

from selftrain.config import LoraConfig, PPOConfig, RewardConfig, RuntimeConfig, SftConfig
from selftrain.models.shapes import Shape
from selftrain.models.zero import zero_of

FLOAT = 4
"""Bytes of the numbers that models are loaded, exported and (on CPU) trained in."""


def frozen_bytes(runtime: RuntimeConfig) -> int:
    """Bytes per number of models that are not trained: PPO's reference, reranker and rollout copy."""
    return FLOAT if runtime.device == "cpu" else 2


LIBRARIES = {"training": 560 << 20, "sampling": 480 << 20}
"""Resident memory of a child on CPU before it loads a model, measured."""
CUDA_LIBRARIES = 700 << 20
HEAD_TILE = (4096, 32768)
"""On GPUs TRL computes SFT's logits in tiles of so many tokens and entries of the vocabulary."""


@dataclass(frozen=True)
class Memory:
    """One process's peak: bytes by term on its device, and bytes that offloading puts into the host's memory."""

    terms: dict[str, int] = field(default_factory=dict)
    host: int = 0

    @property
    def total(self) -> int:
        """Bytes on the device."""
        return sum(self.terms.values())


def world(runtime: RuntimeConfig) -> int:
    """Training processes on all nodes."""
    return runtime.processes * runtime.nodes


def training_memory(
    shape: Shape,
    parameters: int,
    runtime: RuntimeConfig,
    *,
    rows: int,
    width: float,
    lora: LoraConfig | None = None,
    head_tokens: int = 0,
    tiled: bool = False,
) -> Memory:
    """One rank that trains a model of `parameters` parameters and the trunk of `shape`.

    rows, width  padded sequences and tokens of a micro batch
    head_tokens  tokens whose logits are computed; 0 without an output layer
    tiled        the logits are computed in TRL's tiles, else all at once
    """
    adapters = shape.adapters(lora.rank) if lora else 0
    states = model_states(parameters, adapters or parameters, shape.largest, runtime)
    activations = activation_bytes(shape, rows * width, runtime)
    logits = head_bytes(shape, head_tokens, tiled, trained=lora is None)
    return Memory(states.terms | {"activations": int(activations + logits)}, states.host)


def model_states(parameters: int, trained: int, largest: int, runtime: RuntimeConfig) -> Memory:
    """Libraries, weights, gradients and optimizer of one rank: all that does not depend on the batch.

    On GPUs under DeepSpeed these are DeepSpeed's own estimates (`estimate_zero2_model_states_mem_needs`,
    `estimate_zero3_model_states_mem_needs`), shared out over the terms; `trained` < `parameters` with adapters.
    """
    zero, ranks = zero_of(runtime), world(runtime)
    cpu = runtime.device == "cpu"
    weights: float
    gradients: float
    optimizer: float
    host = 0.0
    if zero.stage == 0:
        # DDP keeps gradients in buckets too; autocast keeps bf16 copies of weights for the length of a forward pass.
        weights = FLOAT * parameters + (0 if cpu else 2 * trained)
        gradients = FLOAT * trained * (2 if ranks > 1 else 1)
        optimizer = 2 * FLOAT * trained
    elif cpu:  # float32 throughout; offloading moves nothing
        share = ranks if zero.stage == 3 else 1
        weights = FLOAT * (parameters / share + (largest if zero.stage == 3 else 0))
        gradients = FLOAT * trained * (1 + 1 / ranks) / share if zero.stage > 1 else 2 * FLOAT * trained
        optimizer = 3 * FLOAT * trained / ranks
    else:
        weights = 2 * parameters / ranks + 4 * largest if zero.stage == 3 else 2 * parameters
        gradients = {1: 4 * trained, 2: 6 * trained / ranks, 3: 4 * trained / ranks}[zero.stage]
        optimizer = 12 * trained / ranks
        if zero.offload_optimizer:
            gradients, optimizer = (2 * trained if zero.stage == 1 else 0), 0
            host = 1.5 * trained * max(4 * ranks, 16) / runtime.processes
            if zero.stage == 3:
                host = 1.5 * 16 * trained / ranks
        if zero.offload_param:
            weights, host = 4 * largest, host + 1.5 * 2 * parameters / ranks
    return Memory(
        {
            "libraries": LIBRARIES["training"] if cpu else CUDA_LIBRARIES,
            "weights": int(weights),
            "gradients": int(gradients),
            "optimizer": int(optimizer),
        },
        int(host),
    )


def activation_bytes(shape: Shape, tokens: float, runtime: RuntimeConfig) -> float:
    """Bytes that the trunk keeps for `tokens` tokens between forward and backward pass.

    Counted from a Llama's layer: two norms keep their input, the normalised input and their output; attention keeps
    queries, keys, values and its output; the gated MLP keeps four vectors of its inner size. Attention keeps no
    [tokens, tokens] matrix.
    """
    narrow = FLOAT if runtime.device == "cpu" else 2
    inner = shape.heads * shape.head_dim
    wide = 6 * shape.hidden
    rest = 2 * inner + 2 * shape.kv_heads * shape.head_dim + 4 * shape.intermediate
    layer = FLOAT * wide + narrow * rest
    if runtime.recomputes:
        return tokens * (FLOAT * shape.hidden * shape.layers + layer)
    return tokens * (layer * shape.layers + 2 * FLOAT * shape.hidden)


def head_bytes(shape: Shape, tokens: float, tiled: bool, trained: bool = True) -> float:
    """Logits, their logarithms and their gradients for `tokens` tokens, float32."""
    if not tokens:
        return 0
    if tiled:
        rows, entries = min(tokens, HEAD_TILE[0]), min(shape.vocabulary, HEAD_TILE[1])
        return FLOAT * (3 * rows * entries + (shape.head if trained else 0))
    return FLOAT * 3 * tokens * shape.vocabulary


def decoding_bytes(shape: Shape, rows: float, length: float, runtime: RuntimeConfig) -> int:
    """Bytes of the KV cache of `rows` sequences of `length` tokens, one layer of it copied while it grows, and a step's logits."""
    number = FLOAT if runtime.device == "cpu" else 2
    cache = rows * length * shape.kv_elements * number * (1 + 1 / shape.layers)
    return int(cache + rows * shape.vocabulary * 6 * FLOAT)


def reading_bytes(shape: Shape, tokens: float) -> int:
    """Bytes that a forward pass without a backward pass needs for `tokens` tokens: a layer's widest part."""
    return int(FLOAT * tokens * (5 * shape.hidden + 4 * shape.intermediate))


def sft_memory(config: SftConfig, shape: Shape, runtime: RuntimeConfig, width: float | None = None) -> Memory:
    """Memory of stage `sft`; `width`: tokens of the longest row, by default `max_tokens`."""
    rows = micro_rows(config.batch_size, config.micro_batch_size, runtime)
    width = min(width or config.max_tokens, shape.context)
    return training_memory(
        shape,
        shape.parameters,
        runtime,
        rows=rows,
        width=width,
        lora=config.lora,
        head_tokens=int(rows * width),
        tiled=runtime.device == "cuda",
    )


def reward_memory(
    config: RewardConfig, shape: Shape, runtime: RuntimeConfig, width: float | None = None
) -> Memory:
    """Memory of stage `train_reward`, where a pair is two rows."""
    rows = 2 * micro_rows(config.batch_size, config.micro_batch_size, runtime)
    width = min(width or config.max_tokens, shape.context)
    return training_memory(shape, shape.classifier, runtime, rows=rows, width=width, lora=config.lora)


def ppo_memory(
    config: PPOConfig,
    shape: Shape,
    judge: Shape,
    runtime: RuntimeConfig,
    prompt: float,
    completion: float,
) -> Memory:
    """Memory of stage `ppo`: policy, frozen reference and reranker, and the larger of rollout and update.

    judge               the reranker's shape
    prompt, completion  tokens of the longest
    """
    ranks = world(runtime)
    trunk = shape.classifier
    separate = config.value_model == "separate"
    trained = shape.parameters + (trunk if separate else shape.hidden)
    rows = min(config.micro_batch, max(1, config.mini_batch // ranks))
    width = min(prompt + completion, shape.context)
    policy = training_memory(
        shape,
        trained,
        runtime,
        rows=rows * (2 if separate else 1),
        width=width,
        lora=config.lora,
        head_tokens=int(rows * completion),
    )
    others = frozen_bytes(runtime) * other_parameters(config, shape.parameters, judge.classifier, runtime)
    share = config.rollout_batch / ranks
    cache = decoding_bytes(shape, share, width, runtime) + reading_bytes(shape, share * prompt)
    terms = dict(policy.terms)
    # A rollout's cache is freed before the update begins.
    if cache > terms["activations"]:
        terms["activations"], terms["kv cache"] = 0, cache
    return Memory(terms | {"other models": others}, policy.host)


def other_parameters(config: PPOConfig, policy: int, reranker: int, runtime: RuntimeConfig) -> int:
    """Parameters of the models in each PPO process other than the trained one.

    With adapters, the reference is the policy without them. Rollouts have a copy of the policy under ZeRO-3 and in an engine.
    """
    copies = (config.lora is None) + (zero_of(runtime).stage == 3 or config.engine != "hf")
    return reranker + copies * policy


def micro_rows(batch: int, micro: int, runtime: RuntimeConfig) -> int:
    """Rows of a micro batch in one process, as `training.common.trainer_arguments` sets them."""
    return min(micro, max(1, batch // world(runtime)))


def rank_bytes(
    stage: str,
    settings: SftConfig | RewardConfig | PPOConfig,
    model: Shape | int,
    runtime: RuntimeConfig,
) -> int:
    """Bytes that each rank of a training stage needs at least on its device (on CPU: of the machine's memory).

    stage     sft, train_reward or ppo
    settings  the stage's part of the config
    model     the generator's shape, or its number of parameters

    For a check before ranks start: training cannot work with less memory. Activations are not counted, so that the check
    refuses nothing that might fit.
    """
    if isinstance(model, Shape):
        parameters, largest, features, classifier = (
            model.parameters, model.largest, model.features, model.classifier,
        )  # fmt: skip
    else:
        parameters, largest, features, classifier = model, 0, 0, model
    if stage not in ("sft", "train_reward", "ppo"):
        raise ValueError(f"stage {stage!r}; expected sft, train_reward or ppo")
    total = classifier if stage == "train_reward" else parameters
    if isinstance(settings, PPOConfig) and settings.value_model == "separate":
        total += classifier
    trained = settings.lora.rank * features if settings.lora else total
    states = model_states(total, trained, largest, runtime)
    others = 0
    if isinstance(settings, PPOConfig):
        others = frozen_bytes(runtime) * other_parameters(settings, parameters, classifier, runtime)
    return states.total + others
