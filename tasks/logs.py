"""Writes log lines as JSON objects, where SELFTRAIN_LOGS=json asks a worker for that: its own lines and those of its runs.

Prefect's own JSON formatter gives a message and its arguments apart, which log stores do not put together.
"""

import json
import logging
from datetime import UTC, datetime

VARIABLE = "SELFTRAIN_LOGS"
SETTINGS = {
    "PREFECT_LOGGING_FORMATTERS_JSON_CLASS": f"{__name__}.JsonLines",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json",
}
"""Variables of the environment by which Prefect's console writes JSON, in the worker and in the processes that it starts."""
RUN = ("flow_run_id", "flow_run_name", "task_run_id", "task_run_name")
"""Attributes that Prefect adds to the records of runs."""


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message, the run, and the stack trace of an exception."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        row = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        row |= {name: str(value) for name in RUN if (value := getattr(record, name, None))}
        if record.exc_info and record.exc_info[0]:
            row["trace"] = self.formatException(record.exc_info)
        return json.dumps(row)
