"""The server's metrics for /metrics, in Prometheus' format."""

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
        self.programs = Counter(
            "sandbox_programs", "Programs judged", ("language", "verdict"), registry=self.registry
        )
        self.dependency_missing = Counter(
            "sandbox_dependency_missing",
            "Programs that failed because a library is missing",
            ("language",),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "sandbox_program_seconds",
            "Seconds from the start of a program's compilation to its result",
            ("language",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.wait = Histogram(
            "sandbox_wait_seconds",
            "Seconds that a program waited for a worker",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.requests = Histogram(
            "sandbox_request_seconds",
            "Seconds from a request's headers to the end of its answer",
            ("route", "status"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.queued = Gauge("sandbox_queue", "Programs that wait for a worker", registry=self.registry)
        self.running = Gauge("sandbox_running", "Programs that are being judged", registry=self.registry)
        self.refused = Counter(
            "sandbox_refused", "Requests refused because the queue was full", registry=self.registry
        )
        self.cancelled = Counter(
            "sandbox_cancelled", "Requests whose client hung up before the result", registry=self.registry
        )
        self.errors = Counter("sandbox_errors", "Programs that the sandbox failed on", registry=self.registry)

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
