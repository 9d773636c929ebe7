"""The commands about the champion: `selftrain champion`, `selftrain promote`, `selftrain drift`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.options import add_command

if TYPE_CHECKING:
    from selftrain.champion.registry import Registry
    from selftrain.store.store import Store


def add_commands(commands: Any) -> None:
    """Add the three commands to the command line."""
    about = "who is champion, since when, why; all decisions so far"
    _add_registry(add_command(commands, "champion", champion_command, about))

    promote = add_command(
        commands,
        "promote",
        promote_command,
        "make a reranker champion by hand, or an earlier champion again",
        "The reranker becomes champion whatever was measured, and the decision is recorded. Runs with --champion "
        "continue from it; they do not judge a challenger again that they have judged before.",
    )
    promote.add_argument("key", help="key of a reranker, or its first digits (see `champion`, `show`)")
    promote.add_argument("--reason", default="by hand", help="reason to record (default: by hand)")
    _add_registry(promote)

    about = "write a page that shows champions, challengers and their figures by decision"
    drift = add_command(commands, "drift", drift_command, about)
    drift.add_argument("--out", default="drift.html", help="the page to write (default: drift.html)")
    _add_registry(drift)


def _add_registry(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--store", help="the store's folder or URL (default: that of SELFTRAIN_STORE, else runs/store)"
    )
    command.add_argument("--name", help="name of the config (default: the only one that has a champion)")


def champion_command(options: argparse.Namespace) -> int:
    """`selftrain champion`."""
    from selftrain.champion.drift import history

    registry = _registry(options)
    print(history(registry.name, registry.records()))
    return 0


def promote_command(options: argparse.Namespace) -> int:
    """`selftrain promote`."""
    from selftrain.champion.registry import Registry, names, promote_by_hand

    store = _store(options)
    registry = Registry(store, options.name) if options.name else _registry(options)
    record = promote_by_hand(registry, options.key, options.reason)
    champion = record.champion
    assert champion is not None, "it was promoted"
    print(
        f"{record.decision}: {champion.ranker} {champion.reranker}, record {record.number} of {registry.name}"
    )
    others = [name for name in names(store) if name != registry.name]
    if record.number == 1 and others:
        print(
            f"this is the first record of {registry.name}; {store.url} also has champions of: {', '.join(others)}"
        )
    return 0


def drift_command(options: argparse.Namespace) -> int:
    """`selftrain drift`."""
    from selftrain.champion.drift import drift_page
    from selftrain.errors import UsageError
    from selftrain.store.store import replace_file

    registry = _registry(options)
    page = drift_page(registry.name, registry.records())
    try:
        replace_file(Path(options.out), page.encode())
    except OSError as error:
        raise UsageError(
            f"{options.out}: {error}; expected a file that can be written: choose one with --out"
        ) from error
    print(Path(options.out).resolve())
    return 0


def _registry(options: argparse.Namespace) -> "Registry":
    from selftrain.champion.registry import find_registry

    return find_registry(_store(options), options.name)


def _store(options: argparse.Namespace) -> "Store":
    from selftrain.config import default_store
    from selftrain.store.store import find_store

    return find_store(options.store or default_store())
