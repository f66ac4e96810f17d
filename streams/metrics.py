"""What Prometheus asks for. All of it comes from the database, so that each process of the website says the same."""

import math
import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, TimeoutError
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import django
from django.db import Error as DatabaseFailed
from django.db import connection
from django.db.models import BooleanField, Count, ExpressionWrapper, F, Max, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce, Now
from django_q.brokers import Broker, get_broker
from django_q.brokers.orm import ORM
from django_q.models import Failure, Success
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from rtspsite import __version__

from . import claims, health
from .models import Capture, Frame, Host, Status, Stream

T = TypeVar("T")
Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
WITHIN_S = 5.0  # Prometheus gives up after 10 s
# How long a capture that has ended is still told of: a few scrapes, so that its last counts are seen.
LATELY_S = 300.0
LATEST_JOBS = 100  # as many as are kept (`save_limit`)
QUANTILES = (0.5, 0.95)


# --- what there is --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CaptureCounts:
    """Of the latest capture of a stream."""

    stream: str
    samples: int
    damaged: int
    repeated: int
    missed: int
    connections: int
    frames: int
    interval_s: float
    started_at: datetime
    last_sample_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class HostState:
    """Ages by the database's clock."""

    name: str
    is_alive: bool
    slots: int
    slots_used: int
    heartbeat_age_s: float
    steady_s: float
    checkpoint_age_s: float


@dataclass(frozen=True, slots=True)
class Found:
    """`waiting_jobs` is None where another broker than the database knows."""

    streams: Mapping[str, int]
    queued_oldest_s: float
    in_progress: Mapping[str, int]
    captures: Sequence[CaptureCounts]
    hosts: Sequence[HostState]
    waiting_jobs: int | None
    latencies_s: Mapping[str, Sequence[float]]
    failed_jobs: Mapping[str, int]


def read() -> Found:
    """Seven queries, however many streams there are."""
    by_status = _by_status()
    broker = get_broker()
    return Found(
        streams={status: count for status, (count, _) in by_status.items()},
        queued_oldest_s=by_status[Status.QUEUED][1],
        in_progress=_in_progress(),
        captures=_captures(),
        hosts=_hosts(),
        waiting_jobs=broker.queue_size() if _is_in_database(broker) else None,
        latencies_s=_latencies_s(),
        failed_jobs=dict(Failure.objects.order_by().values_list("func").annotate(Count("pk"))),
    )


def _by_status() -> dict[str, tuple[int, float]]:
    """Of each status how many streams, and for how many seconds one has had it at most."""
    age = Max(Now() - F("status_at"))
    rows = Stream.objects.order_by().values_list("status").annotate(count=Count("pk"), age=age)
    found = {status: (count, _seconds(longest)) for status, count, longest in rows}
    return {status.value: (0, 0.0) for status in Status} | found


def _in_progress() -> dict[str, int]:
    is_wanted = Q(stop_requested_at=None)
    is_claimed = Q(claimed_by__in=Host.objects.filter(claims.is_alive()).values("pk"))
    return Capture.objects.filter(finished_at=None).aggregate(
        claimed=Count("pk", filter=is_wanted & is_claimed),
        unclaimed=Count("pk", filter=is_wanted & ~is_claimed),
        stopping=Count("pk", filter=~is_wanted),
    )


def _captures() -> list[CaptureCounts]:
    """Of the streams that have a capture in progress, or had one lately: history costs nothing here."""
    is_at_rest = Q(status__in=(Status.IDLE, Status.FAILED))
    is_recent = Q(status_at__gte=Now() - timedelta(seconds=LATELY_S))
    latest = Capture.objects.filter(stream=OuterRef("pk")).order_by("-id").values("pk")[:1]
    told = Stream.objects.filter(~is_at_rest | is_recent).order_by().values_list(Subquery(latest))
    frames = Frame.objects.filter(capture=OuterRef("pk")).order_by().values("capture").annotate(n=Count("pk"))
    kept = Coalesce(Subquery(frames.values("n")), 0)
    rows = Capture.objects.filter(pk__in=told).annotate(kept=kept).order_by("stream__name")
    columns = ("samples", "rejected", "repeated", "missed", "connections", "kept")
    times = ("interval_s", "started_at", "last_sample_at", "finished_at")
    return [CaptureCounts(*row) for row in rows.values_list("stream__name", *columns, *times)]


def _hosts() -> list[HostState]:
    rows = Host.objects.annotate(
        is_alive=ExpressionWrapper(claims.is_alive(), BooleanField()),
        used=Count("captures"),  # none of them is finished: a constraint of the table
        silent=Now() - F("heartbeat_at"),
        steady=Now() - F("steady_at"),
        unsaved=Now() - F("saved_at"),
    ).order_by("name")
    found = rows.values_list("name", "is_alive", "slots", "used", "silent", "steady", "unsaved")
    return [HostState(*row[:4], *(_seconds(age) for age in row[4:])) for row in found]


def _latencies_s() -> dict[str, list[float]]:
    """From the request that queued it to its end, of the latest jobs, by function.

    django-q sets `started` when the job is queued, not when a worker begins (django_q/tasks.py, `async_task`).
    """
    found = defaultdict(list)
    rows = Success.objects.order_by("-stopped").values_list("func", "started", "stopped")
    for func, queued_at, stopped_at in rows[:LATEST_JOBS]:
        found[func].append(_seconds(stopped_at - queued_at))
    return found


def _seconds(age: timedelta | None) -> float:
    """Not below 0, where two clocks differ."""
    return max(0.0, age.total_seconds()) if age else 0.0


def _is_in_database(broker: Broker) -> bool:
    return isinstance(broker, ORM)


def _waiting_elsewhere() -> int | None:
    """None if the jobs wait in the database, or if the broker is away."""
    broker = get_broker()
    is_elsewhere = not _is_in_database(broker)
    return int(broker.queue_size()) if is_elsewhere and broker.ping() else None


DATABASE = health.Asker(read)
BROKER = health.Asker(_waiting_elsewhere)


# --- how it is told -------------------------------------------------------------------------------


def page() -> bytes:
    """In Prometheus' text format. What does not answer in time is left out; `..._up` says so."""
    database, broker, room = DATABASE.begin(), BROKER.begin(), health.ROOM.begin()
    health.wait_for(database, broker, room, within_s=WITHIN_S)
    found = _in_time(database)
    waiting_jobs = found.waiting_jobs if found and found.waiting_jobs is not None else _in_time(broker)
    registry = CollectorRegistry()
    registry.register(Page([*_of_service(found, waiting_jobs, _in_time(room)), *_of_database(found)]))
    return generate_latest(registry)


class Page(Collector):
    """Values that are known already."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _in_time(asked: "Future[T]") -> T | None:
    try:
        return asked.result(0)
    except (TimeoutError, DatabaseFailed, OSError):
        return None


def _of_service(found: Found | None, waiting_jobs: int | None, room: health.Room | None) -> Iterator[Metric]:
    versions = {"python": platform.python_version(), "django": django.get_version(), "database": connection.vendor}
    yield InfoMetricFamily("rtspsite", "What the service runs on.", value=versions)
    yield InfoMetricFamily("rtspsite_build", "The service's version.", value={"version": __version__})
    yield _gauge(
        "database_up", "Whether the database answers. If not, most other metrics are missing.", found is not None
    )
    yield _gauge("broker_up", "Whether the queue of jobs answers.", waiting_jobs is not None)
    if waiting_jobs is not None:
        yield _gauge("jobs_queued", "Jobs that no cluster has taken yet.", waiting_jobs)
    if room:
        yield _gauge(
            "storage_free_bytes", "Free for pictures, where they are files of this machine.", room.free_bytes
        )


def _of_database(found: Found | None) -> Iterator[Metric]:
    if found is None:
        return
    yield _gauges("streams", "Streams by status.", "status", found.streams)
    yield _gauge("queued_oldest_seconds", "For how long a stream has been queued at most.", found.queued_oldest_s)
    words = "Captures in progress: recorded by a living host, by none, or being finished."
    yield _gauges("captures", words, "state", found.in_progress)
    yield from _of_captures(found.captures)
    yield from _of_hosts(found.hosts)
    yield _latency(found.latencies_s)
    words = "Jobs that failed and are still in the list of failed jobs."
    yield _gauges("jobs_failed", words, "func", found.failed_jobs)


def _of_captures(captures: Sequence[CaptureCounts]) -> list[Metric]:
    """Of those in progress or ended lately. Each new capture of a stream counts from 0 again."""
    samples = _per_stream(CounterMetricFamily, "samples", "Samples.")
    words = "Pictures not used, by reason: damaged ones, and samples that repeat another one."
    rejected = CounterMetricFamily("rtspsite_capture_rejected", words, labels=["stream", "reason"])
    missed = _per_stream(CounterMetricFamily, "missed", "Due times without a sample.")
    connections = _per_stream(
        CounterMetricFamily, "connections", "Connections to the camera; all but the first are reconnects."
    )
    frames = _per_stream(GaugeMetricFamily, "frames", "Frames saved.")
    interval = _per_stream(GaugeMetricFamily, "interval_seconds", "From one sample to the next, as asked for.")
    start = _per_stream(GaugeMetricFamily, "start_timestamp_seconds", "When the capture was started.")
    last = _per_stream(
        GaugeMetricFamily, "last_sample_timestamp_seconds", "When the last sample came; none yet: missing."
    )
    for capture in captures:
        labels = [capture.stream]
        samples.add_metric(labels, capture.samples)
        rejected.add_metric([*labels, "damaged"], capture.damaged)
        rejected.add_metric([*labels, "repeated"], capture.repeated)
        missed.add_metric(labels, capture.missed)
        connections.add_metric(labels, capture.connections)
        frames.add_metric(labels, capture.frames)
        if capture.finished_at is None:  # or whoever waits for its next sample would wait in vain
            interval.add_metric(labels, capture.interval_s)
            start.add_metric(labels, capture.started_at.timestamp())
            if capture.last_sample_at:
                last.add_metric(labels, capture.last_sample_at.timestamp())
    return [samples, rejected, missed, connections, frames, interval, start, last]


def _of_hosts(hosts: Sequence[HostState]) -> Iterator[Metric]:
    def each(name: str, words: str, values: Iterable[tuple[str, float]]) -> Metric:
        return _gauges(f"host_{name}", words, "host", dict(values))

    yield each("up", "Whether its supervisor was heard lately.", ((h.name, h.is_alive) for h in hosts))
    yield each("slots", "Captures at once that it has room for.", ((h.name, h.slots) for h in hosts))
    yield each("slots_used", "Captures that it claims.", ((h.name, h.slots_used) for h in hosts))
    yield each("heartbeat_age_seconds", "Since it was heard.", ((h.name, h.heartbeat_age_s) for h in hosts))
    yield each("steady_seconds", "Since when it is heard without a gap.", ((h.name, h.steady_s) for h in hosts))
    words = "Age of the oldest that its recorders have told and that is not saved; of living hosts."
    yield each("checkpoint_age_seconds", words, ((h.name, h.checkpoint_age_s) for h in hosts if h.is_alive))


def _latency(latencies_s: Mapping[str, Sequence[float]]) -> Metric:
    words = f"From the request that queued a job to its end; of the latest {LATEST_JOBS} jobs."
    latency = SummaryMetricFamily("rtspsite_job_latency_seconds", words)
    for func, all_s in sorted(latencies_s.items()):
        for quantile in QUANTILES:
            labels = {"func": func, "quantile": f"{quantile:g}"}
            latency.add_sample(latency.name, labels, _quantile(all_s, quantile))
    return latency


def _quantile(values: Sequence[float], quantile: float) -> float:
    """By nearest rank; of at least one value."""
    return sorted(values)[math.ceil(quantile * len(values)) - 1]


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"rtspsite_{name}", words, value=value)


def _gauges(name: str, words: str, label: str, values: Mapping[str, float]) -> Metric:
    metric = GaugeMetricFamily(f"rtspsite_{name}", words, labels=[label])
    for of, value in values.items():
        metric.add_metric([of], value)
    return metric


def _per_stream(family: type[Family], name: str, words: str) -> Family:
    return family(f"rtspsite_capture_{name}", words, labels=["stream"])
