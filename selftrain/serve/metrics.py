"""The server's metrics for /metrics, in Prometheus' format. Those of several workers are added up."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from selftrain.serve.workers import METRICS

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper bounds of the histograms' buckets."""


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # the server's own memory, CPU time and descriptors
        self.requests = Histogram(
            "rerank_request_seconds",
            "Seconds from a request's headers to the end of its answer",
            ("route", "status"),
            buckets=SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            "rerank_batch_candidates",
            "Candidates that were scored together",
            buckets=SIZES,
            registry=registry,
        )
        self.candidates = Counter("rerank_candidates", "Candidates of answered requests", registry=registry)
        self.distinct = Counter(
            "rerank_distinct_candidates", "Candidates that the model has read", registry=registry
        )
        self.tokens = Counter("rerank_tokens", "Tokens of prompts and candidates", registry=registry)
        self.queued = Gauge(
            "rerank_queue",
            "Candidates that wait to be scored",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.refused = Counter(
            "rerank_refused", "Requests refused because the queue was full", registry=registry
        )
        self.cancelled = Counter(
            "rerank_cancelled", "Requests whose client hung up before the answer", registry=registry
        )
        self.reloads = Counter("rerank_reloads", "Loads of a newer reranker", ("outcome",), registry=registry)
        self.model = Gauge(
            "rerank_model_info",
            "The reranker that is served now: 1",
            ("model",),
            registry=registry,
            multiprocess_mode="max",
        )
        self._served = ""

    def scored(self, candidates: int, distinct: int) -> None:
        """Count one batch."""
        self.batch.observe(candidates)
        self.candidates.inc(candidates)
        self.distinct.inc(distinct)

    def serves(self, name: str) -> None:
        """Say which reranker is served."""
        if self._served and METRICS in os.environ:
            self.model.labels(self._served).set(0)  # the files of several workers cannot forget it
        elif self._served:
            self.model.remove(self._served)
        self.model.labels(name).set(1)
        self._served = name

    def text(self) -> bytes:
        """All metrics as text in Prometheus' format."""
        registry = self.registry
        if METRICS in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)
