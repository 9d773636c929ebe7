"""Tests of `make deploy`: it keeps what was changed on the server, says so, and lets changes of the file through."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command import ROOT, PrefectServer


@pytest.fixture(autouse=True)
def infra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start in the root, with the scripts of infra/ importable, as `python infra/deploy.py` does."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "infra")


@pytest.mark.parametrize(
    ("file", "server", "last", "merged", "kept"),
    [
        ("new", "old", "old", "new", False),  # the file was changed
        ("old", "theirs", "old", "theirs", True),  # the server was changed
        ("new", "theirs", "old", "theirs", True),  # both
        ("new", "new", "old", "new", False),  # both, to the same
        ("new", None, None, "new", False),  # new in the file
        (None, "theirs", None, "theirs", True),  # new on the server
        (None, "old", "old", None, False),  # gone from the file
        ("old", None, "old", None, True),  # deleted on the server
    ],
)
def test_a_value_follows_the_file_until_it_is_changed_on_the_server(
    file: str | None, server: str | None, last: str | None, merged: str | None, kept: bool
):
    merge = importlib.import_module("merge")
    wanted, found = [{("at",): value} if value else {} for value in (file, server)]
    deployed = merge.digests({("at",): last} if last else {})
    result = merge.merge(wanted, found, deployed, force=False)
    assert result == ({("at",): merged} if merged else {}, [("at",)] if kept else [])
    assert merge.merge(wanted, found, deployed, force=True) == (wanted, [])
    unknown = merge.merge(wanted, found, None, force=False)
    assert unknown == (found, [("at",)] if file != server else []), "never deployed by this: all is kept"


def test_values_are_compared_one_by_one_to_a_depth():
    merge = importlib.import_module("merge")
    values = {
        "parameters": {"overrides": {"sft.epochs": {"x": 1}}, "rounds": None},
        "tags": {},
        "paused": False,
    }
    assert merge.flat(values, 3) == {
        ("parameters", "overrides", "sft.epochs"): {"x": 1},
        ("parameters", "rounds"): None,
        ("tags",): {},
        ("paused",): False,
    }
    assert merge.nested(merge.flat(values, 3)) == values
    assert merge.nested({("a", "b"): 1, ("a",): None}) == {"a": {"b": 1}}
    none = merge.flat({"schedules": {}}, 3)
    assert merge.nested(none | {("schedules", "theirs"): 1}) == {"schedules": {"theirs": 1}}
    assert none == {("schedules",): {}}, "else what was added on the server would be remembered as the file's"


def test_environment_variables_inside_a_value_are_not_printed():
    text = importlib.import_module("merge")._text
    path = ("job_configuration", "job_manifest", "spec", "template")
    container = {"env": [{"name": "HF_TOKEN", "value": "planted"}], "image": "x"}
    assert text(path, {path: {"containers": [container]}}) == "set"
    assert text(path, {path: {"containers": []}}) == '{"containers": []}'


@pytest.mark.parametrize("kind", ["process", "docker", "kubernetes"])
def test_what_is_remembered_of_a_pool_fits_into_a_variable(kind: str):
    """Prefect takes no more than 5000 characters."""
    from prefect.client.schemas.actions import VariableCreate
    from prefect.server.api import collections_data

    merge, deploy = importlib.import_module("merge"), importlib.import_module("deploy")
    views = Path(next(iter(collections_data.__path__))) / "views"
    workers = json.loads((views / "aggregate-worker-metadata.json").read_text())
    default = next(kinds[kind] for kinds in workers.values() if kind in kinds)
    template = deploy.job_template(kind, default["default_base_job_configuration"])
    VariableCreate(name="pool", value=merge.digests(merge.flat(template | {"runs": 1}, deploy.DEPTH)))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"gpu": 0}, "limits: gpu: expected a whole number, at least 1, got 0"),
        ({"gpu": 1, "sandbox": -1}, "limits: sandbox: expected .* got -1"),
        ({"gpu": True}, "got True"),
        ({"gpu": 1.5}, "got 1.5"),
        ({"gpu": None}, "got None"),
        (
            {"gpus": 1},
            "limits: unknown name gpus; expected gpu or sandbox, or one for some machines, e.g. gpu-b",
        ),
        ({"train": 1}, "unknown name train"),
        ({3: 1}, "unknown name 3"),
        (["gpu"], "limits: expected names and slots"),
    ],
)
def test_limits_that_the_file_may_not_have(limits: Any, message: str):
    with pytest.raises(SystemExit, match=message):
        importlib.import_module("limits").wanted_limits({"limits": limits})


def test_limits_ship_and_a_file_without_limits_has_none():
    wanted_limits, deploy = importlib.import_module("limits").wanted_limits, importlib.import_module("deploy")
    assert wanted_limits(deploy.settings()) == {"gpu": 1, "sandbox": 1}
    assert wanted_limits({"limits": {"gpu-b": 2}}) == {"gpu-b": 2}
    assert wanted_limits({}) == wanted_limits({"limits": None}) == {}


Deploy = Callable[..., str]


@pytest.fixture
def deploy(
    server: PrefectServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Deploy]:
    """`deploy(*arguments)`: what `make deploy` runs; returns what it printed. At the end all is as in the files again."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["deploy.py", *(arguments or ["process"])])
        with temporary_settings({PREFECT_API_URL: server.url}):
            assert not importlib.import_module("deploy").main()
        return capsys.readouterr().out

    yield run
    run("process", "--force")


LIMITS = "v2/concurrency_limits"


def limits(server: PrefectServer) -> tuple[dict[str, int], int]:
    """The limits on GPU and sandbox, and the pool's."""
    rows = {row["name"]: row["limit"] for row in server.post(f"{LIMITS}/filter")}
    shown = {name: limit for name, limit in rows.items() if name.startswith(("gpu", "sandbox"))}
    return shown, server.send("GET", "work_pools/selftrain")["concurrency_limit"]


def prod(server: PrefectServer) -> dict[str, Any]:
    """The deployment `prod` as the server has it, without what changes by itself."""
    row = server.send("GET", "deployments/name/iterative-selftrain/prod")
    limit = row["global_concurrency_limit"]["limit"]
    leave = {"updated", "last_polled", "status", "global_concurrency_limit"}
    row["schedules"] = [{k: v for k, v in each.items() if k != "updated"} for each in row["schedules"]]
    return {key: value for key, value in row.items() if key not in leave} | {"limit": limit}


def test_what_was_changed_in_the_ui_is_kept_and_told(deploy: Deploy, server: PrefectServer):
    deploy("process", "--force")
    as_in_the_file = prod(server)
    path = f"deployments/{as_in_the_file['id']}"
    (nightly,) = as_in_the_file["schedules"]
    server.send(
        "PATCH", f"{path}/schedules/{nightly['id']}", {"active": False, "schedule": {"cron": "30 4 * * *"}}
    )
    hourly = {"schedule": {"interval": 3600}, "active": True, "parameters": {"config": "smoke"}}
    server.send("POST", f"{path}/schedules", [hourly])
    changes = {
        "parameters": {"config": "prod", "champion": False, "rounds": 3},
        "tags": ["selftrain", "prod", "night"],
        "description": "Ours.",
        "concurrency_limit": 2,
        "concurrency_options": {"collision_strategy": "CANCEL_NEW"},
        "job_variables": as_in_the_file["job_variables"] | {"env": {"HF_TOKEN": "planted"}},
        "paused": True,
    }
    server.send("PATCH", path, changes)
    template = server.send("GET", "work_pools/selftrain")["base_job_template"]
    template["variables"]["properties"]["stream_output"]["default"] = False
    server.send("PATCH", "work_pools/selftrain", {"base_job_template": template})
    server.send("PATCH", "work_pools/selftrain", {"concurrency_limit": 3})
    server.send("PATCH", f"{LIMITS}/gpu", {"limit": 2})
    server.send("DELETE", f"{LIMITS}/sandbox")
    server.send("POST", f"{LIMITS}/", {"name": "gpu-b", "limit": 4})
    silent = server.post("automations/filter")[0]
    server.send("PATCH", f"automations/{silent['id']}", {"enabled": False})
    changed = prod(server)

    told = deploy()
    assert f"automation `{silent['name']}` is paused" in told
    assert prod(server) == changed
    assert server.send("GET", "work_pools/selftrain")["base_job_template"] == template
    assert limits(server) == ({"gpu": 2, "gpu-b": 4}, 3)
    for line in (
        "schedules.nightly.active: false (prefect.yaml: true)",
        "parameters.rounds: 3 (prefect.yaml: none)",
        "parameters.champion: false (prefect.yaml: true)",
        "tags.night: true (prefect.yaml: none)",
        'description: "Ours." (prefect.yaml: "Every night',
        "concurrency.limit: 2 (prefect.yaml: 1)",
        'concurrency.collision_strategy: "CANCEL_NEW" (prefect.yaml: "ENQUEUE")',
        "job_variables.env.HF_TOKEN: set (prefect.yaml: none)",
        "paused: true (prefect.yaml: false)",
        "variables.properties.stream_output.default: false (infra: true)",
        "runs: 3 (infra: 8)",
        "gpu.limit: 2 (infra/pools.yaml: 1)",
        "gpu-b.limit: 4 (infra/pools.yaml: none)",
        "sandbox.limit: none (infra/pools.yaml: 1)",
    ):
        assert f"  {line}" in told
    assert '  schedules.nightly.schedule: {"cron": "30 4 * * *"' in told
    assert "FORCE=1" in told
    assert "planted" not in told

    assert not server.send("GET", f"automations/{silent['id']}")["enabled"]

    assert "kept" not in deploy("process", "--force")
    assert limits(server) == ({"gpu": 1, "sandbox": 1}, 8)
    assert server.send("GET", f"automations/{silent['id']}")["enabled"]
    assert prod(server) == as_in_the_file
    assert "unchanged" in deploy()
    assert prod(server) == as_in_the_file


def test_changes_of_the_file_arrive_beside_changes_on_the_server(
    deploy: Deploy, server: PrefectServer, tmp_path: Path
):
    deploy("process", "--force")
    before = prod(server)
    server.send("PATCH", f"deployments/{before['id']}", {"parameters": before["parameters"] | {"rounds": 3}})
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    content["build"], content["definitions"] = [], None
    rows = {row["name"]: row for row in content["deployments"]}
    rows["prod"]["parameters"] = {"config": "demo"}
    rows["prod"]["tags"].append("new")
    rows["prod"]["work_pool"] = {"name": "selftrain", "job_variables": {"working_dir": "/elsewhere"}}
    rows["prod"]["schedules"][0]["cron"] = "0 5 * * *"
    rows["prod"]["schedules"].append({"slug": "weekly", "cron": "0 9 * * 6"})
    content["deployments"].append(rows["demo"] | {"name": "another"})
    told = deploy_file(server, tmp_path, content)
    after = prod(server)
    assert "another: created" in told
    assert after["parameters"] == {"config": "demo", "rounds": 3}, "`champion` is gone from the file"
    assert set(after["tags"]) == {"selftrain", "prod", "new"}
    assert after["job_variables"] == {"working_dir": "/elsewhere"}
    schedules = {row["slug"]: row for row in after["schedules"]}
    assert schedules["nightly"]["schedule"]["cron"] == "0 5 * * *"
    assert schedules["nightly"]["id"] == before["schedules"][0]["id"]
    assert set(schedules) == {"nightly", "weekly"}
    made = server.send("GET", "deployments/name/iterative-selftrain/another")
    server.send("DELETE", f"deployments/{made['id']}")


def test_a_schedule_that_was_paused_and_is_gone_from_the_file_is_kept(
    deploy: Deploy, server: PrefectServer, tmp_path: Path
):
    deploy("process", "--force")
    before = prod(server)
    schedules = f"deployments/{before['id']}/schedules"
    nightly = before["schedules"][0]
    server.send("PATCH", f"{schedules}/{nightly['id']}", {"active": False})
    like_it = {"schedule": nightly["schedule"], "active": True}
    server.send("POST", schedules, [like_it, like_it])  # in the UI, where they get no slugs
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    content["build"], content["deployments"] = [], content["deployments"][:1]
    deploy_file(server, tmp_path, content)
    content["deployments"][0]["schedules"] = []
    told = deploy_file(server, tmp_path, content)
    assert "schedules.nightly.active: false (prefect.yaml: none)" in told
    assert "unchanged" in deploy_file(server, tmp_path, content)
    after = sorted(prod(server)["schedules"], key=lambda row: row["created"])
    assert [(row["slug"], row["active"]) for row in after] == [("nightly", False), (None, True), (None, True)]
    assert after[0]["schedule"] == nightly["schedule"]


def deploy_file(server: PrefectServer, folder: Path, content: dict[str, Any]) -> str:
    """Make the deployments of a prefect.yaml with `content`; returns what was printed."""
    import contextlib
    import io

    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    file = folder / "prefect.yaml"
    file.write_text(json.dumps(content))
    out = io.StringIO()
    with (
        temporary_settings({PREFECT_API_URL: server.url}),
        get_client(sync_client=True) as client,
        contextlib.redirect_stdout(out),
    ):
        deployed = importlib.import_module("merge").Deployed(client, False)
        importlib.import_module("deployments").make_deployments(client, file, deployed)
    return out.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"triggers": []}, "unknown triggers"),
        ({"schedules": [{"cron": "0 2 * * *"}]}, "needs a slug"),
        ({"schedules": [{"slug": "x", "rrule": "FREQ=DAILY"}]}, "cron or interval"),
        ({"schedules": [{"slug": "x", "cron": "at two"}]}, "schedule x of x: .*Invalid cron string"),
        (
            {"schedules": [{"slug": "x", "cron": "0 2 * * *", "timezoen": "UTC"}]},
            "schedule x of x: .*timezoen",
        ),
        ({"schedules": [{"slug": "x", "interval": "1h"}]}, "schedule x of x: "),
        ({"work_pool": None}, "work_pool missing"),
        ({"entrypoint": None}, "entrypoint missing"),
        ({"entrypoint": "flows.nowhere.x"}, "flows.nowhere.x: No module"),
        ({"entrypoint": "flows.evaluate.nothing"}, "'nothing' not found"),
        ({"tags": "selftrain"}, "tags: expected a list"),
    ],
)
def test_what_the_file_may_not_say(change: dict[str, Any], message: str, tmp_path: Path):
    row = {"name": "x", "entrypoint": "flows.evaluate.evaluate", "work_pool": {"name": "selftrain"}} | change
    (tmp_path / "prefect.yaml").write_text(json.dumps({"deployments": [row]}))
    with pytest.raises(SystemExit, match=message):
        importlib.import_module("deployments").make_deployments(None, tmp_path / "prefect.yaml", None)
