"""Tests of options of `serve` and `studio` that cannot be, and of when commands may ask the Hugging Face hub."""

import os
import socket
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.cli import parser
from flows.cli_serve import url_of
from flows.options import offline
from sandbox.cli import main as sandbox_main
from sandbox.errors import UsageError as SandboxUsageError
from sandbox.serve.connection import check_free, token_of
from selftrain.errors import UsageError


@pytest.mark.parametrize(
    ("places", "asks"),
    [
        (["demo"], False),
        (["runs/demo", None], False),
        (["champion"], False),
        (["me/tiny"], True),
        (["demo", "me/tiny@main"], True),
    ],
)
def test_the_hub_is_asked_only_for_what_is_not_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: list[str | None], asks: bool
):
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")  # restored after the test
    monkeypatch.delenv("HF_HUB_OFFLINE")
    offline(*places)
    assert os.environ.get("HF_HUB_OFFLINE") == (None if asks else "1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "demo", "--port", "65536"], "--port: expected 0 to 65535, got 65536"),
        (["studio", "demo", "--port", "-1"], "--port: expected 0 to 65535, got -1"),
        (["serve", "demo", "--poll", "-1"], "--poll: expected seconds, or 0 for never, got -1"),
        (["serve", "demo", "--poll", "nan"], "--poll: expected seconds, or 0 for never, got nan"),
        (["serve", "demo", "--queue", "0"], "--queue: expected at least 1, got 0"),
        (["serve", "demo", "--workers", "0"], "--workers: expected at least 1, got 0"),
        (
            ["serve", "demo", "--workers", "2", "--device", "cuda"],
            "--workers 2: several processes are for CPUs; on cuda one serves",
        ),
        (["serve", "demo", "--stuck", "0"], "--stuck: expected more than 0 seconds, got 0"),
        (
            ["serve", "demo", "--host", "nowhere.invalid"],
            "--host nowhere.invalid --port 8081: cannot be listened on",
        ),
    ],
)
def test_an_option_of_a_server_that_cannot_be_is_told(arguments: list[str], said: str):
    options = parser().parse_args(arguments)
    with pytest.raises((UsageError, SandboxUsageError), match=said):
        options.command(options)


@pytest.mark.parametrize("token", ["gehéim", "a\nb", "a\x00"])
def test_a_token_that_not_every_client_can_send_is_told_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, token: str
):
    monkeypatch.setattr(os, "environ", os.environ | {"SELFTRAIN_TOKEN": token})
    options = parser().parse_args(["serve", "no-such-run", "--port", "0"])
    with pytest.raises(SandboxUsageError, match="SELFTRAIN_TOKEN: expected a token of visible ASCII"):
        options.command(options)


@pytest.mark.parametrize("server", ["selftrain", "sandbox"])
def test_the_token_that_was_checked_is_the_one_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, server: str
):
    """The environment is read once, before the model is loaded."""
    variable, asked = f"{server.upper()}_TOKEN", []

    def load(*_: Any) -> Any:
        monkeypatch.delenv(variable)
        return SimpleNamespace(served=SimpleNamespace(name="", way=""), backend="process")

    def application(*given: Any) -> Any:
        asked.append(given[2])
        return SimpleNamespace(state=SimpleNamespace(broke=lambda: None))

    monkeypatch.setenv(variable, "open sesame")
    monkeypatch.setattr(f"{server}.serve.command.application", application)
    monkeypatch.setattr("sandbox.serve.connection.serve", lambda *_: None)
    if server == "selftrain":
        monkeypatch.setattr("selftrain.serve.served.Source", load)
        options = parser().parse_args(["serve", "demo", "--port", "0"])
        assert options.command(options) == 0
    else:
        monkeypatch.setattr("sandbox.cli._sandbox", lambda *_: nullcontext(load()))
        assert sandbox_main(["serve", "--port", "0"]) == 0
    assert asked == ["open sesame"]


def test_blanks_and_line_breaks_around_a_token_do_not_count(monkeypatch: pytest.MonkeyPatch):
    """As a secret that is mounted from a file has."""
    for given, token in ((" open sesame\r\n", "open sesame"), ("\n", None), ("", None)):
        monkeypatch.setenv("SELFTRAIN_TOKEN", given)
        assert token_of("SELFTRAIN_TOKEN") == token


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(host: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = parser().parse_args(
            ["serve", "no-such-run", "--host", host, "--port", str(taken.getsockname()[1])]
        )
        with pytest.raises(SandboxUsageError, match="cannot be listened on: Address already in use"):
            options.command(options)


def test_a_family_of_addresses_that_the_kernel_does_not_have_is_left_out(monkeypatch: pytest.MonkeyPatch):
    """As ::1 of `localhost` where IPv6 is switched off: the server listens on the others."""
    found = socket.getaddrinfo("127.0.0.1", 0, type=socket.SOCK_STREAM)
    strange = (socket.AF_APPLETALK, *found[0][1:])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [strange, *found])
    check_free("localhost", 0)


def test_the_address_of_a_server_is_one_that_clients_can_use():
    assert url_of("127.0.0.1", 8081) == "http://127.0.0.1:8081"
    assert url_of("::1", 8081) == "http://[::1]:8081"
