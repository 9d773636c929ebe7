"""How a run is called, and what a webhook is told of it: that it ended badly, promotions.

The webhook's URL is a secret: it comes from SELFTRAIN_WEBHOOK_URL or the Prefect Secret block `selftrain-webhook`, and is
in no log. Without one nothing is sent. What is sent is JSON with `text`, which Slack and Mattermost show as it is, `event`
and `details`.
"""

import json
import logging
import os
import urllib.error
import urllib.request
from pathlib import PurePath
from typing import Any

VARIABLE, BLOCK = "SELFTRAIN_WEBHOOK_URL", "selftrain-webhook"
LOGGER = logging.getLogger("selftrain.notify")
SECONDS = 10.0


def notify(event: str, text: str, details: dict[str, Any]) -> None:
    """Post `event` to the webhook, if there is one. Never raises: news that gets lost must not end a run.

    event    what happened, for programs: `failed`, `crashed`, `cancelled`, `promoted`
    text     the same for people, one line
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
        LOGGER.warning("the webhook was not told of %r: it answered %d", text, error.code)
    except (OSError, ValueError) as error:  # their texts may hold the URL
        LOGGER.warning("the webhook was not told of %r: %s", text, type(error).__name__)


def webhook_url() -> str | None:
    """The webhook's URL, None where there is none."""
    if url := os.environ.get(VARIABLE):
        return url
    import httpx
    from prefect.blocks.system import Secret
    from prefect.exceptions import PrefectException

    try:
        return str(Secret.load(BLOCK, _sync=True).get())
    except ValueError:  # there is no such block
        return None
    except (PrefectException, httpx.HTTPError, OSError) as error:
        LOGGER.warning("the block %s cannot be read: %s", BLOCK, type(error).__name__)
        return None


def notify_of_end(flow: Any, flow_run: Any, state: Any) -> None:
    """Flow hook: tell of a run that failed, crashed or was cancelled."""
    from prefect.settings import PREFECT_UI_URL

    page = f"{PREFECT_UI_URL.value() or ''}/runs/flow-run/{flow_run.id}"
    event = state.type.value.lower().replace("cancelling", "cancelled")
    notify(
        event,
        f"{flow.name}: {flow_run.name} {event}: {(state.message or '')[:500]} {page}",
        {"flow": flow.name, "run": flow_run.name, "id": str(flow_run.id), "page": page},
    )


def run_name() -> str:
    """What the UI lists a run as, e.g. `prod · 2026-11-25 02:00` (UTC)."""
    from prefect.runtime import flow_run

    config = PurePath(str(flow_run.parameters.get("config", "demo"))).stem
    return f"{config} · {flow_run.scheduled_start_time:%Y-%m-%d %H:%M}"
