"""Tests of messages to a webhook: what is wrong with it ends no run, and its URL, which is a secret, is in no log."""

import logging
import socket
import threading

import pytest

from tasks.notify import VARIABLE, notify
from tests.webhook import SECRET


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:9/{SECRET} with a blank",
        f"http://127.0.0.1:port/{SECRET}",
        f"http://127.0.0.1:9/{SECRET}-\u00e9",
        f"http://[::1/{SECRET}",
        f"//127.0.0.1:9/{SECRET}",
    ],
)
def test_a_wrong_url_is_logged_without_the_url(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv(VARIABLE, url)
    notify("failed", "demo failed", {})
    assert "the webhook did not get 'demo failed'" in caplog.text
    assert SECRET not in caplog.text


def test_an_answer_that_is_not_http_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(f"what is {SECRET}?\r\n\r\n".encode())

    caplog.set_level(logging.WARNING)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{listening.getsockname()[1]}/{SECRET}")
        notify("promoted", "demo promoted", {})
    assert "the webhook did not get 'demo promoted': BadStatusLine" in caplog.text
    assert SECRET not in caplog.text
