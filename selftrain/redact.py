"""Secrets never reach logs or errors: this takes them out of a line."""

import os
import re
from collections.abc import Sequence

SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(API|ACCESS|AUTH).*KEY", re.IGNORECASE)
URL_PASSWORD = re.compile(r"(://[^/\s:@]+):[^/\s@]+@")


def known_secrets() -> list[str]:
    """What variables such as HF_TOKEN hold."""
    return [value for name, value in os.environ.items() if len(value) >= 8 and SECRET_NAME.search(name)]


def without_secrets(line: str, secrets: Sequence[str]) -> str:
    """`line` with `***` for each of `secrets`, and for passwords in URLs."""
    for value in secrets:
        line = line.replace(value, "***")
    return URL_PASSWORD.sub(r"\1:***@", line)
