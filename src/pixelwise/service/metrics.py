"""Metrics, as Prometheus reads them. Each app counts for itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pixelwise.service.desk import Desk

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """What is counted."""

    def __init__(self, desk: Desk) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "pixelwise_requests",
            "Requests by address and status.",
            ["path", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "pixelwise_request_seconds",
            "Seconds from a request to the end of its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.pictures = Counter(
            "pixelwise_pictures", "Pictures that were segmented.", registry=self._registry
        )
        self.pixels = Counter("pixelwise_pixels", "Their pixels.", registry=self._registry)
        accepted = Gauge(
            "pixelwise_accepted",
            "Requests that were accepted and are not yet answered.",
            registry=self._registry,
        )
        accepted.set_function(lambda: desk.accepted)
        places = Gauge("pixelwise_places", "How many there may be of them.", registry=self._registry)
        places.set(desk.limits.places)

    def text(self) -> bytes:
        return generate_latest(self._registry)
