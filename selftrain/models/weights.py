"""Digests of a model's weights, checks for NaN and infinity, and access to unsharded tensors under ZeRO stage 3."""

import hashlib
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.errors import UsageError
from selftrain.store.store import sha256_file
from selftrain.store.weights import sha256_of_samples

if TYPE_CHECKING:
    from selftrain.config import ModelConfig

KINDS = frozenset({".safetensors", ".json", ".gguf", ".model", ".txt"})
"""Endings of the files of a checkpoint."""


def base_digest(config: "ModelConfig", field: str = "model.base") -> str | None:
    """The identity of the pretrained weights `config.base`: sha256 over a folder's files, or a hub repository's commit.

    None where `config.base` is null.

    field  name of the setting, for error messages

    Raises UsageError where the folder holds no model or cannot be read, or the hub does not answer.
    """
    if config.base is None:
        return None
    folder = Path(config.base)
    if not folder.is_dir():
        return hub_commit(config.base, config.revision, field)
    files = _files(folder, KINDS | ({".jinja"} if config.prompt_style == "chat" else set()), field)
    if config.gguf_file and not (folder / config.gguf_file).is_file():
        raise UsageError(f"model.gguf_file: {config.gguf_file} is not in {folder}")
    if not files:
        raise UsageError(
            f"{field}: {folder} holds no model; expected a folder in the Hugging Face layout (safetensors, or gguf_file)"
        )
    return _digest(folder, files, field)


def checkpoint_digest(folder: Path) -> str:
    """sha256 over the files of a checkpoint, its chat template's too, of weights over samples (`sha256_of_samples`).

    Raises UsageError where one cannot be read.
    """
    files = _files(folder, KINDS | {".jinja"}, "checkpoint")
    return _digest(folder, files, "checkpoint", sha256_of_samples)


def _files(folder: Path, endings: Set[str], field: str) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in endings)
    except OSError as error:
        raise _unreadable(folder, field, error) from error


def _digest(
    folder: Path, files: Sequence[Path], field: str, of_weights: Callable[[Path], str] = sha256_file
) -> str:
    """sha256 over the names and the digests of `files`; `of_weights` computes that of a safetensors file."""
    try:
        lines = [
            f"{path.name} {(of_weights if path.suffix == '.safetensors' else sha256_file)(path)}\n"
            for path in files
        ]
    except OSError as error:
        raise _unreadable(folder, field, error) from error
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _unreadable(folder: Path, field: str, error: OSError) -> UsageError:
    return UsageError(f"{field}: {folder} cannot be read: {error}")


def hub_commit(name: str, revision: str | None, field: str = "model.base") -> str:
    """The commit of `revision` (default: main) of the hub model `name`. A full commit is returned without asking the hub.

    Raises UsageError where the hub does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if revision and len(revision) == 40:
        return revision
    try:
        commit = HfApi().model_info(name, revision=revision).sha
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise UsageError(
            f"{field}: {name!r} is no folder here and the hub does not answer for it: {error}; a full commit in "
            f"{field.replace('base', 'revision')} is taken without asking, and so is a folder"
        ) from error
    assert commit is not None
    return commit


def hub_folder(name: str, revision: str | None = None) -> Path:
    """The folder of the hub model `name` in the hub's cache on this machine; downloads what is not there, but no pickles.

    Raises UsageError where the hub does not answer or has no such model.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    kinds: Any = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=kinds))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UsageError(f"{name}: no folder or run here, and the hub does not give it: {error}") from error


def digest_weights(folder: Path) -> str:
    """sha256 over the tensors of a checkpoint: names, types, shapes and bytes."""
    from safetensors.numpy import load_file

    sha = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in sorted(load_file(path).items()):
            sha.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
            sha.update(tensor.tobytes())
    return sha.hexdigest()


LARGEST_WEIGHT = 1e9
"""Bound on the absolute value of weights. Larger weights only occur when training diverges; their products overflow."""


def all_sound(model: Any) -> bool:
    """Whether all weights of `model` are finite and at most `LARGEST_WEIGHT` in absolute value.

    Every rank must call this, and gets the same result. Under ZeRO stage 3 each rank checks its own shards.
    """
    from accelerate.utils import gather_object

    # Any comparison with NaN is false, so NaN counts as not sound.
    sound = all(bool((_local_shard(p).abs() <= LARGEST_WEIGHT).all()) for p in model.parameters())
    return all(gather_object([sound]))


def _local_shard(parameter: Any) -> Any:
    """The part of a weight that this rank holds: its shard under ZeRO stage 3, else the whole weight.

    The uninitialised padding at the end of a shard is cut off.
    """
    if not hasattr(parameter, "ds_tensor"):
        return parameter.detach()
    shard = parameter.ds_tensor
    begin = parameter.ds_zero_partition_rank * shard.ds_numel
    return shard.detach()[: max(0, parameter.ds_numel - begin)]


def unsharded_parameters(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and the unsharded tensor of each parameter, tied parameters once. Every rank must iterate to the end.

    Under ZeRO stage 3 the ranks gather one parameter at a time, and a tensor is only valid until the next iteration: copy it.
    """
    for name, parameter in module.named_parameters():
        if hasattr(parameter, "ds_id"):
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter]):
                yield name, parameter.detach()
        else:
            yield name, parameter.detach()
