"""Reads the store's credentials from a Prefect block, for stores whose credentials are not in the environment."""

from typing import Any

from selftrain.errors import UsageError


def storage_options(block: str | None) -> dict[str, Any]:
    """The storage options in the Prefect block `TYPE/NAME`; empty if `block` is None. They are never written to disk.

    A `remote-file-system` block gives its settings, a `secret` block a JSON object such as {"key": ..., "secret": ...}.
    Raises UsageError if the block does not exist or has other content.
    """
    if block is None:
        return {}
    from prefect.blocks.system import Secret
    from prefect.filesystems import RemoteFileSystem

    kinds: dict[str, Any] = {"secret": Secret, "remote-file-system": RemoteFileSystem}
    kind, _, name = block.partition("/")
    if kind not in kinds or not name:
        raise UsageError(f"store_block {block!r}: expected secret/NAME or remote-file-system/NAME")
    try:
        loaded = kinds[kind].load(name, _sync=True)
    except ValueError as error:
        raise UsageError(
            f"store_block {block!r}: {str(error).splitlines()[0]}; create it in Prefect (Blocks) on the server of PREFECT_API_URL"
        ) from None
    options = loaded.get() if kind == "secret" else loaded.settings
    if not isinstance(options, dict):
        raise UsageError(
            f"store_block {block!r}: expected a JSON object of storage options such as key, secret and endpoint_url, got "
            f"{type(options).__name__}"
        )
    return options
