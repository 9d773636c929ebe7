"""Figures about the runs of this machine for Prometheus. Flows keep them in a file; the worker serves them (see `flows.worker`).

A flow's process ends with its run, so it cannot be asked itself. The file is written only where SELFTRAIN_METRICS is set, which the
flows inherit from their worker; it is replaced as a whole, under a lock, so a kill at any moment leaves one that can be read.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selftrain.errors import UsageError
from selftrain.store.artifact_cache import cache_folder
from selftrain.store.files import replace_file
from tasks.run import Run, Step

VARIABLE = "SELFTRAIN_METRICS"
"""Environment variable: PORT or HOST:PORT of the worker's endpoint. Without it nothing is kept and nothing is served."""
FAMILIES = {
    "stage_seconds": ("gauge", "Seconds that the last build of a step took", ("config", "stage", "step")),
    "stage_tokens_per_second": ("gauge", "Tokens a second in the last build of a step", ("config", "stage", "step")),
    "stage_gpu_memory_bytes": (
        "gauge",
        "Largest GPU memory in use by rank 0 in the last build of a step",
        ("config", "stage", "step"),
    ),
    "stages_built": ("counter", "Artifacts built", ("config", "stage")),
    "stages_cached": ("counter", "Artifacts found in the store", ("config", "stage")),
    "programs": ("counter", "Programs judged in the sandbox", ("config", "verdict")),
    "last_success_timestamp_seconds": ("gauge", "Time at which a run last completed", ("config",)),
}  # fmt: skip
"""Name of a metric, without the prefix `selftrain_` -> type, meaning, labels."""
Figures = dict[str, dict[str, float]]
"""Name of a metric -> its labels' values, as a JSON list -> value."""


def keep_hit(run: Run, step: Step) -> None:
    """Count an artifact that was found in the store."""
    _keep(lambda figures: _add(figures, "stages_cached", 1, run.config.name, step.stage.name))


def keep_built(run: Run, step: Step, manifest: dict[str, Any]) -> None:
    """Keep what the manifest of an artifact that was built says."""
    config, stage, metrics = run.config.name, step.stage.name, manifest.get("metrics") or {}
    found = {
        "stage_seconds": manifest.get("seconds"),
        "stage_tokens_per_second": _tokens_per_second(manifest),
        "stage_gpu_memory_bytes": metrics.get("gpu_memory_bytes"),
    }

    def change(figures: Figures) -> None:
        for name, value in found.items():
            if value is not None:
                _set(figures, name, value, config, stage, step.name)
        _add(figures, "stages_built", 1, config, stage)
        for verdict, count in (metrics.get("verdicts") or {}).items() if stage == "execute" else ():
            _add(figures, "programs", count, config, verdict)

    _keep(change)


def keep_success(run: Run) -> None:
    """Keep the time at which a run was completed."""
    _keep(lambda figures: _set(figures, "last_success_timestamp_seconds", time.time(), run.config.name))


def _tokens_per_second(manifest: dict[str, Any]) -> float | None:
    """The last rate that a training reported, or the tokens of a sampling by its seconds; None for other stages."""
    rate = (manifest.get("pace") or {}).get("tokens_per_second")
    if rate is None and manifest.get("stage") == "sample" and manifest.get("seconds"):
        rate = manifest["metrics"]["tokens"] / manifest["seconds"]
    return rate


def _set(figures: Figures, name: str, value: float, *labels: str) -> None:
    figures.setdefault(name, {})[json.dumps(labels)] = value


def _add(figures: Figures, name: str, value: float, *labels: str) -> None:
    _set(figures, name, figures.get(name, {}).get(json.dumps(labels), 0) + value, *labels)


def _file() -> Path:
    return cache_folder() / "metrics" / "figures.json"


def _keep(change: Callable[[Figures], None]) -> None:
    """Change the figures, if they are wanted. What cannot be written is logged: the run goes on."""
    if not os.environ.get(VARIABLE):
        return
    file = _file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel frees it when this process ends
            figures = read()
            change(figures)
            replace_file(file, json.dumps(figures).encode())
    except OSError as error:
        logging.getLogger("selftrain").warning("cannot keep figures for %s: %s", VARIABLE, error)


def read() -> Figures:
    """The figures so far; of a metric that this version does not know, none."""
    try:
        found = json.loads(_file().read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return {name: found[name] for name in FAMILIES if name in found}


class Collector:
    """Reads the figures for each answer of the endpoint."""

    def collect(self) -> Iterator[Any]:
        """The metrics, as prometheus_client wants them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        figures = read()
        for name, (kind, meaning, labels) in FAMILIES.items():
            family = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}[kind]
            metric = family(f"selftrain_{name}", meaning, labels=labels)
            for values, value in figures.get(name, {}).items():
                metric.add_metric(json.loads(values), value)
            yield metric


def serve(address: str) -> tuple[Any, Any]:
    """Serve the figures at PORT or HOST:PORT, in a thread; returns the server and the thread. Raises UsageError if it cannot."""
    from prometheus_client import CollectorRegistry, start_http_server

    host, _, port = address.rpartition(":")
    registry = CollectorRegistry()
    registry.register(Collector())
    try:
        return start_http_server(int(port), host.strip("[]") or "127.0.0.1", registry)
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(
            f"{VARIABLE}={address}: {error}; expected a free PORT, or HOST:PORT, at which the worker serves its figures"
        ) from error
