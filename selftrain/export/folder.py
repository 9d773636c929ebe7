"""Exports a reranker into a folder: checkpoint, model card, selftrain.json."""

import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from selftrain.errors import UsageError
from selftrain.export.card import facts, model_card
from selftrain.export.checkpoint import Exact, write_checkpoint
from selftrain.export.onnx import FILE as ONNX
from selftrain.export.onnx import write_onnx
from selftrain.export.source import Source
from selftrain.units import listed

FACTS = "selftrain.json"
"""The file by which an exported folder is known. Its field `files` names all of the export's."""


def export(
    source: Source, folder: Path, repo: str | None = None, licence: str | None = None, onnx: bool = False
) -> Exact:
    """Write the exported reranker to `folder`, in place of an earlier export; nothing is left there if it fails.

    repo     the hub's id under which the card's examples load the model; None: the folder's name
    licence  the hub's name of the licence; None: see `model_card`
    onnx     whether an ONNX file is written too

    Raises UsageError where `folder` holds something else or more, or cannot be written, or there can be no ONNX file.
    """
    folder = folder.resolve()  # a link leads to the folder that is replaced
    if folder.exists() and not (folder / FACTS).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: expected a new folder or an earlier export; it holds something else")
    made = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        made.chmod(0o755)
        exact = write_checkpoint(source.folder, made)
        (made / "README.md").write_text(model_card(source, exact, repo or folder.name, licence))
        if onnx:
            write_onnx(made)
        names = sorted([*(path.name for path in made.iterdir()), FACTS])
        (made / FACTS).write_text(json.dumps(facts(source, exact) | {"files": names}, indent=1) + "\n")
        if folder.exists():
            _check_only(folder, {*names, ONNX})
            shutil.rmtree(folder)
        made.rename(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error}") from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
    return exact


def _check_only(folder: Path, names: set[str]) -> None:
    """Raise UsageError where `folder` holds more than an earlier export: files that are neither `names` nor those that it lists."""
    with suppress(ValueError, TypeError, AttributeError):  # damaged, or of a version that listed none
        names = names | set(json.loads((folder / FACTS).read_text()).get("files", ()))
    if more := sorted(path.name for path in folder.iterdir() if path.name not in names):
        raise UsageError(
            f"{folder}: beside an earlier export it holds {listed(more)}, which would be lost; move that away, or name another folder"
        )
