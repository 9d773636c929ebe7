"""Redacts secrets in lines for logs and error messages."""

import os
import re
from collections.abc import Sequence

SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|WEBHOOK|AUTH_STRING|(API|ACCESS|AUTH|PRIVATE).*KEY",
    re.IGNORECASE,
)
URL_PASSWORD = re.compile(r"(://[^/\s:@]*):[^/\s]+@")


def known_secrets() -> list[str]:
    """Values of environment variables whose names suggest secrets, such as HF_TOKEN; only values of 8 or more characters."""
    return [value for name, value in os.environ.items() if len(value) >= 8 and SECRET_NAME.search(name)]


def without_secrets(line: str, secrets: Sequence[str]) -> str:
    """`line` with `***` instead of each text in `secrets` and of each password in a URL."""
    for value in secrets:
        line = line.replace(value, "***")
    return URL_PASSWORD.sub(r"\1:***@", line)
