"""Tests of reading the store's credentials from a Prefect block."""

import pytest

from selftrain.errors import UsageError
from tasks.credentials import storage_options
from tests.command import PrefectServer


def test_options_come_from_either_kind_of_block(server: PrefectServer):
    from prefect.blocks.system import Secret
    from prefect.filesystems import RemoteFileSystem
    from prefect.settings import PREFECT_API_URL, temporary_settings

    # Prefect has read its settings before the server was there; without one it starts its own.
    with temporary_settings({PREFECT_API_URL: server.url}):
        options = {"key": "tests", "secret": "planted-secret", "endpoint_url": "http://127.0.0.1:1"}
        Secret(value=options).save("store-of-tests", overwrite=True, _sync=True)
        Secret(value="only text").save("no-options", overwrite=True, _sync=True)
        RemoteFileSystem(basepath="s3://artifacts", settings=options).save(
            "store-of-tests", overwrite=True, _sync=True
        )
        assert storage_options(None) == {}
        assert storage_options("secret/store-of-tests") == options
        assert storage_options("remote-file-system/store-of-tests") == options
        for block, said in (
            ("secret/not-there", "create it in Prefect"),
            ("store-of-tests", r"expected secret/NAME"),
            ("secret/no-options", "expected a JSON object"),
        ):
            with pytest.raises(UsageError, match=said) as raised:
                storage_options(block)
            assert "only text" not in str(raised.value)
