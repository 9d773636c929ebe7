"""The server's metrics for /metrics, in Prometheus' format."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from sandbox.checking import CHECKER_FAILED
from sandbox.libraries import named_in
from sandbox.verdicts import Result

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the histogram's buckets, in seconds."""


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # the server's own memory, CPU time and descriptors
        count, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        measure = partial(Histogram, registry=self.registry, buckets=BUCKETS)
        self.programs = count("sandbox_programs", "Programs judged", ("language", "verdict"))
        what = "Programs that failed because a library is missing"
        self.dependency_missing = count("sandbox_dependency_missing", what, ("language",))
        what = "Seconds from the start of a program's compilation to its result"
        self.seconds = measure("sandbox_program_seconds", what, ("language",))
        self.wait = measure("sandbox_wait_seconds", "Seconds that a program waited for a worker")
        what = "Seconds from a request's headers to the end of its answer"
        self.requests = measure("sandbox_request_seconds", what, ("route", "status"))
        self.queued = gauge("sandbox_queue", "Programs that wait for a worker")
        self.running = gauge("sandbox_running", "Programs that are being judged")
        self.refused = count("sandbox_refused", "Requests refused because the queue was full")
        self.cancelled = count("sandbox_cancelled", "Requests whose client hung up before the result")
        self.errors = count("sandbox_errors", "Programs that the sandbox failed on")

    def judged(self, language: str, result: Result, wait: float, seconds: float) -> None:
        """Count one judged program. `wait`: seconds until a worker was free; `seconds`: from then to its result (wall-clock time)."""
        self.wait.observe(wait)
        self.programs.labels(language, str(result.verdict)).inc()
        self.seconds.labels(language).observe(seconds)
        if named_in(result.note):
            self.dependency_missing.labels(language).inc()
        if not result.verdict.is_label and result.note != CHECKER_FAILED:
            self.errors.inc()

    def text(self) -> bytes:
        """All metrics as text in Prometheus' format."""
        return generate_latest(self.registry)
