"""Names runs in the Prefect UI, and posts failures and promotions to a webhook.

The webhook's URL is a secret: it comes from SELFTRAIN_WEBHOOK_URL or the Prefect Secret block `selftrain-webhook`, and is
never logged. Without a URL nothing is sent. The body is JSON with `text` (Slack and Mattermost show it), `event` and `details`.
"""

import json
import logging
import os
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import PurePath
from typing import Any

from selftrain.configfile import load_config

VARIABLE, BLOCK = "SELFTRAIN_WEBHOOK_URL", "selftrain-webhook"
LOGGER = logging.getLogger("selftrain.notify")
SECONDS = 10.0


def notify(event: str, text: str, details: dict[str, Any]) -> None:
    """Post `event` to the webhook, if one is configured. Never raises: a lost notification must not end a run.

    event    for programs: `failed`, `crashed`, `cancelled`, `promoted`
    text     for people, one line
    details  JSON values
    """
    url = webhook_url()
    if not url:
        return
    body = json.dumps({"event": event, "text": text, "details": details}, default=str).encode()
    try:
        if not url.startswith(("http://", "https://")):
            raise ValueError("not a URL of http or https")
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=SECONDS):  # noqa: S310
            pass
    except urllib.error.HTTPError as error:
        LOGGER.warning("the webhook did not accept %r: HTTP status %d", text, error.code)
    # Log only the type: the message may contain the URL. HTTPException: what answers is no HTTP server, or the URL has a blank.
    except (OSError, ValueError, HTTPException) as error:
        LOGGER.warning("the webhook did not get %r: %s", text, type(error).__name__)


def webhook_url() -> str | None:
    """The webhook's URL, None if none is configured."""
    if url := os.environ.get(VARIABLE):
        return url
    import httpx
    from prefect.blocks.system import Secret
    from prefect.exceptions import PrefectException

    try:
        return str(Secret.load(BLOCK, _sync=True).get())
    except ValueError:  # no such block
        return None
    except (PrefectException, httpx.HTTPError, OSError) as error:
        LOGGER.warning("cannot read the Prefect block %s: %s", BLOCK, type(error).__name__)
        return None


def notify_of_end(flow: Any, flow_run: Any, state: Any) -> None:
    """Flow hook: notify of a run that failed, crashed or was cancelled."""
    from prefect.settings import PREFECT_UI_URL

    page = f"{PREFECT_UI_URL.value() or ''}/runs/flow-run/{flow_run.id}"
    event = state.type.value.lower().replace("cancelling", "cancelled")
    notify(
        event,
        f"{flow.name}: {flow_run.name} {event}: {(state.message or '')[:500]} {page}",
        {"flow": flow.name, "run": flow_run.name, "id": str(flow_run.id), "page": page},
    )


def notify_of_crash(flow: Any, flow_run: Any, state: Any) -> None:
    """Flow hook: as `notify_of_end`, but not for a deployment's run: that starts again (infra/automation.py), so it has not ended."""
    if flow_run.deployment_id is None:
        notify_of_end(flow, flow_run, state)


def run_name() -> str:
    """The flow run's name in the UI: the config's `name` and the time, e.g. `prod · 2026-11-25 02:00` (UTC)."""
    from prefect.runtime import flow_run

    config = str(flow_run.parameters.get("config", "demo"))
    try:
        name = load_config(config, flow_run.parameters.get("overrides")).name
    except Exception:  # the flow itself says what is wrong with them
        name = PurePath(config).stem
    return f"{name} · {flow_run.scheduled_start_time:%Y-%m-%d %H:%M}"


FLOW: dict[str, Any] = {
    "flow_run_name": run_name,
    "validate_parameters": False,
    "on_failure": [notify_of_end],
    "on_crashed": [notify_of_crash],
    "on_cancellation": [notify_of_end],
}
"""Arguments of Prefect's decorator that all flows have."""
