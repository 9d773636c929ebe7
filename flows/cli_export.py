"""The command `selftrain export`: a finished run's reranker as a folder that other tools can use."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from flows.options import add_command


def add_export(commands: Any) -> None:
    """Add `selftrain export`."""
    export = add_command(
        commands,
        "export",
        export_command,
        "write the reranker as a folder for transformers, TRL, vLLM and the hub",
        "Writes the last reranker of a finished run, or the champion, as a checkpoint from which transformers, TRL and "
        "vLLM compute its scores, with a model card written from the run's figures.",
    )
    export.add_argument("run", help="a run's folder, or its name in runs/; or champion[:NAME][@STORE]")
    export.add_argument("folder", help="the folder to write: new, or an earlier export")
    export.add_argument(
        "--push",
        metavar="ID",
        help="the hub's id, NAME/MODEL: says what would be uploaded, and uploads it with --yes",
    )
    export.add_argument("--yes", action="store_true", help="with --push: upload")
    export.add_argument(
        "--private",
        action="store_true",
        help="with --push: a new repository is private, and a public one is refused",
    )
    export.add_argument(
        "--license",
        metavar="NAME",
        help="the hub's name of the licence for the card (default: apache-2.0, or `other` for a pretrained base model)",
    )
    export.add_argument(
        "--onnx", action="store_true", help="also write model.onnx, which ONNX Runtime runs without PyTorch"
    )


def export_command(options: argparse.Namespace) -> int:
    """`selftrain export`."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from selftrain.errors import UsageError
    from selftrain.export.folder import export
    from selftrain.export.hub import contents, push
    from selftrain.export.source import find
    from selftrain.units import size

    if (options.yes or options.private) and not options.push:
        raise UsageError("--yes and --private go with --push ID")
    folder = Path(options.folder).resolve()  # this folder itself may be replaced
    source = find(options.run)
    exact = export(source, folder, options.push, options.license, options.onnx)
    print(f"{options.folder}: {source.ranker} of {source.name}")
    for found, what in ((exact.template, "the chat template"), (exact.pair, "a pair of texts")):
        if not found:
            print(
                f"selftrain: {what} does not give the reranker's own token ids with this tokenizer; the card says so",
                file=sys.stderr,
            )
    if options.push:
        for name, amount in contents(folder):
            print(f"  {name:<24}{size(amount)}")
        if options.yes:
            print(f"uploaded: {push(folder, options.push, options.private)}")
        else:
            print(f"these files would be uploaded to {options.push}; upload them with --yes")
    return 0
