"""Test of docs/backup.md: a store that was copied, to S3 and back to a folder, is the store that it was."""

from pathlib import Path

import pytest

from flows.cli import main
from selftrain.stage import ArtifactRef
from selftrain.store.store import Store
from tests.command import Finished
from tests.servers import S3Server


def test_a_copy_of_a_store_is_a_store(
    smoke_run: Finished, s3: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    refs = [ArtifactRef(each["stage"], each["key"]) for each in smoke_run.stages.values()]
    url = s3.store("backup/store")
    bucket = Store(url, options=s3.options)
    for path in sorted(smoke_run.store.rglob("*")):
        if path.is_file() and ".local" not in path.parts:
            bucket.files.fs.put(str(path), f"{url}/{path.relative_to(smoke_run.store)}")
    assert [ref for ref in refs if not bucket.has(ref)] == []
    bucket.files.fs.get(f"{url}/", f"{tmp_path / 'restored'}/", recursive=True)
    restored = Store(str(tmp_path / "restored"))
    assert [ref for ref in refs if not restored.has(ref)] == []
    reranker = smoke_run.stages["rm-2"]["key"]
    assert main(["promote", reranker, "--store", str(tmp_path / "restored"), "--name", "smoke"]) == 0
    assert main(["champion", "--store", str(tmp_path / "restored")]) == 0
    assert reranker[:8] in capsys.readouterr().out
