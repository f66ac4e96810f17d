"""What Prometheus reads: valid whatever there is, the same cost for one stream and for many, and no secret in it."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db.models.functions import Now
from django.test import Client
from django_q.models import Failure, OrmQ, Success
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import DjangoAssertNumQueries

from streams import claims, metrics, services
from streams.engine.report import Counters, State, Status
from streams.models import Capture, Host, Stream
from tests.streams.builders import (
    NOON,
    SECRET,
    URL_WITH_SECRET,
    all_files,
    make_capture,
    make_claim,
    make_finished,
    make_host,
    make_picture,
    make_report,
    record,
    silence,
)
from tests.streams.processes import ROOT

Labels = tuple[tuple[str, str], ...]


def told(text: str) -> dict[str, dict[Labels, float]]:
    """Name to labels to value."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values = found.setdefault(sample.name.removeprefix("rtspsite_"), {})
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in values, f"{sample.name} {labels} is told twice"
            values[labels] = sample.value
    return found


def scrape(client: Client) -> dict[str, dict[Labels, float]]:
    response = client.get("/metrics")
    assert response.status_code == 200
    return told(response.content.decode())


def of(stream: str = "demo", **more: str) -> Labels:
    return tuple(sorted({"stream": stream, **more}.items()))


def by(label: str, values: dict[Labels, float]) -> dict[str, float]:
    return {dict(labels)[label]: value for labels, value in values.items()}


def checkpoint(capture: Capture, counters: Counters, frames: int = 0, host: Host | None = None) -> claims.Claim:
    """What a recorder has counted, saved; the capture stays claimed."""
    claim = make_claim(capture, host)
    pictures = [make_picture(n, score=100.0 + n) for n in range(1, frames + 1)]
    report = make_report(*pictures, status=Status(State.CAPTURING), counters=counters)
    services.checkpoint(claim, services.Totals.of(capture), report)
    return claim


def make_job(number: int, took_s: float, *, func: str = "streams.jobs.place", is_success: bool = True) -> None:
    ended_at = datetime.now(UTC) + timedelta(seconds=number)
    model = Success if is_success else Failure
    queued_at = ended_at - timedelta(seconds=took_s)
    model.objects.create(
        id=f"{func}-{number}", name="job", func=func, started=queued_at, stopped=ended_at, success=is_success
    )


pytestmark = pytest.mark.django_db(transaction=True)


# --- what is told ---------------------------------------------------------------------------------


def test_it_is_valid_when_there_is_nothing(client: Client) -> None:
    found = scrape(client)
    statuses = ("idle", "queued", "connecting", "capturing", "reconnecting", "stopping", "failed")
    assert by("status", found["streams"]) == dict.fromkeys(statuses, 0.0)
    assert by("state", found["captures"]) == {"claimed": 0.0, "unclaimed": 0.0, "stopping": 0.0}
    for name in ("queued_oldest_seconds", "jobs_queued"):
        assert found[name] == {(): 0.0}
    assert found["database_up"] == found["broker_up"] == {(): 1.0}
    assert found["storage_free_bytes"][()] > 0
    ((_, database), _, _) = next(iter(found["info"]))
    assert database in ("sqlite", "postgresql")


def test_it_is_prometheus_text(client: Client) -> None:
    assert client.get("/metrics")["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_every_metric_says_what_it_is(client: Client) -> None:
    make_host()
    make_finished()
    for family in text_string_to_metric_families(client.get("/metrics").content.decode()):
        assert family.documentation
        assert family.type != "unknown"
        assert re.fullmatch("rtspsite_[a-z_]+", family.name)


def test_streams_are_counted_by_status(client: Client) -> None:
    make_capture("rtsp://a.example/a")
    make_capture("rtsp://b.example/b")
    make_finished("rtsp://c.example/c")
    found = by("status", scrape(client)["streams"])
    assert {status: count for status, count in found.items() if count} == {"queued": 2.0, "idle": 1.0}


def test_a_capture_is_told_with_what_it_has_counted(client: Client) -> None:
    counters = Counters(samples=40, missed=3, rejected=7, repeated=5, connections=2, last_sample_at=NOON)
    capture = make_capture(interval_s=2.5)
    checkpoint(capture, counters, frames=4)
    found = scrape(client)
    expected = {
        "samples_total": 40,
        "missed_total": 3,
        "connections_total": 2,
        "frames": 4,
        "interval_seconds": 2.5,
        "start_timestamp_seconds": capture.started_at.timestamp(),
        "last_sample_timestamp_seconds": NOON,
    }
    for name, value in expected.items():
        assert found[f"capture_{name}"] == {of(): pytest.approx(value)}
    rejected = found["capture_rejected_total"]
    assert rejected == {of(reason="damaged"): 7.0, of(reason="repeated"): 5.0}


def test_a_capture_without_a_sample_has_no_last_one(client: Client) -> None:
    make_capture()
    found = scrape(client)
    assert "capture_last_sample_timestamp_seconds" not in found
    assert found["capture_samples_total"] == found["capture_frames"] == {of(): 0.0}


def test_each_capture_of_a_stream_counts_from_nothing(client: Client) -> None:
    make_finished(frames=9)
    make_capture()
    found = scrape(client)
    assert found["capture_samples_total"] == found["capture_frames"] == {of(): 0.0}


def test_a_capture_that_has_just_ended_is_still_told(client: Client) -> None:
    make_finished(frames=9)
    found = scrape(client)
    assert found["capture_samples_total"] == found["capture_frames"] == {of(): 9.0}


def test_no_sample_is_waited_for_from_a_capture_that_has_ended(client: Client) -> None:
    capture = make_capture()
    claim = checkpoint(capture, Counters(samples=3, connections=1, last_sample_at=NOON))
    of_time = {f"capture_{name}_seconds" for name in ("interval", "start_timestamp", "last_sample_timestamp")}
    assert of_time <= set(scrape(client))
    services.stop(capture.stream)
    services.hand_over(claim)
    assert services.finish(capture.pk)
    assert of_time & set(scrape(client)) == set()


def test_history_is_not_told(client: Client) -> None:
    make_finished(frames=9)
    long_ago = Now() - timedelta(seconds=metrics.LATELY_S + 1)
    Stream.objects.update(status_at=long_ago)
    assert "capture_samples_total" not in scrape(client)


def test_a_capture_in_progress_is_told_however_long_its_status_is_the_same(client: Client) -> None:
    checkpoint(make_capture(), Counters(samples=3, connections=1))
    Stream.objects.update(status_at=Now() - timedelta(days=3))
    assert scrape(client)["capture_samples_total"] == {of(): 3.0}


def test_captures_in_progress_are_told_by_who_has_them(client: Client) -> None:
    make_finished("rtsp://f.example/f")
    living, dead = make_host("north"), make_host("south")
    for name, host in {"a": living, "b": living, "c": dead}.items():
        make_claim(make_capture(f"rtsp://{name}.example/{name}"), host)
    make_capture("rtsp://d.example/d")
    services.stop(make_capture("rtsp://e.example/e").stream)
    silence(dead, claims.CLAIM_S + 5)
    assert by("state", scrape(client)["captures"]) == {"claimed": 2.0, "unclaimed": 2.0, "stopping": 1.0}


def test_the_longest_wait_for_a_slot_is_told(client: Client) -> None:
    for name, waited_s in {"a": 70, "b": 500, "c": 9000}.items():
        capture = make_capture(f"rtsp://{name}.example/{name}")
        Stream.objects.filter(pk=capture.stream_id).update(status_at=Now() - timedelta(seconds=waited_s))
    Stream.objects.filter(name="c").update(status="capturing")
    assert 500 <= scrape(client)["queued_oldest_seconds"][()] < 9000


def test_a_host_is_told_with_its_slots_and_ages(client: Client) -> None:
    make_finished("rtsp://other.example/other")
    host = make_host("north", slots=3)
    make_claim(make_capture(), host)
    Host.objects.filter(name="north").update(
        heartbeat_at=Now() - timedelta(seconds=4),
        steady_at=Now() - timedelta(seconds=1000),
        saved_at=Now() - timedelta(seconds=400),
    )
    found = scrape(client)
    expected = {"up": 1, "slots": 3, "slots_used": 1}
    assert {name: by("host", found[f"host_{name}"])["north"] for name in expected} == expected
    ages = ("heartbeat_age_seconds", "checkpoint_age_seconds", "steady_seconds")
    heartbeat, checkpoint, steady = (by("host", found[f"host_{name}"])["north"] for name in ages)
    assert 4 <= heartbeat < 400 <= checkpoint < 1000 <= steady


def test_a_silent_host_is_told_so_and_has_no_checkpoints(client: Client) -> None:
    make_host("north", silent_s=claims.CLAIM_S + 60)
    make_host("south")
    found = scrape(client)
    assert by("host", found["host_up"]) == {"north": 0.0, "south": 1.0}
    assert list(by("host", found["host_checkpoint_age_seconds"])) == ["south"]
    assert by("host", found["host_heartbeat_age_seconds"])["north"] >= claims.CLAIM_S + 60


def test_jobs_that_wait_are_counted(client: Client) -> None:
    make_capture("rtsp://a.example/a")
    make_capture("rtsp://b.example/b")
    taken = OrmQ.objects.first()
    assert taken
    taken.lock = datetime.now(UTC) + timedelta(hours=1)
    taken.save()
    assert scrape(client)["jobs_queued"] == {(): 1.0}


def test_how_long_the_latest_jobs_took_is_told_by_function(client: Client) -> None:
    for number in range(-9, 1):
        make_job(number, 5000.0)  # not among the latest
    for number in range(1, 81):
        make_job(number, float(number))
    for number in range(1, 21):
        make_job(number, 0.5, func="streams.jobs.finish")
    found = scrape(client)["job_latency_seconds"]
    assert found == {
        (("func", "streams.jobs.place"), ("quantile", "0.5")): 40.0,
        (("func", "streams.jobs.place"), ("quantile", "0.95")): 76.0,
        (("func", "streams.jobs.finish"), ("quantile", "0.5")): 0.5,
        (("func", "streams.jobs.finish"), ("quantile", "0.95")): 0.5,
    }


def test_a_job_whose_two_clocks_differ_took_no_negative_time(client: Client) -> None:
    make_job(1, -3.0)
    assert set(scrape(client)["job_latency_seconds"].values()) == {0.0}


def test_jobs_that_failed_are_counted(client: Client) -> None:
    for number in range(3):
        make_job(number, 1.0, is_success=False)
    make_job(9, 1.0)
    assert by("func", scrape(client)["jobs_failed"]) == {"streams.jobs.place": 3.0}


def test_no_address_credential_or_file_is_told(client: Client) -> None:
    capture = make_capture(URL_WITH_SECRET)
    record(capture, frames=3)
    text = client.get("/metrics").content.decode()
    assert 'stream="demo"' in text
    files = [name for name in all_files(capture) if name]
    assert files
    for secret in (SECRET, "camera.example", "rtsp://", "admin", *files):
        assert secret not in text


def test_every_metric_is_explained(client: Client) -> None:
    families = text_string_to_metric_families(client.get("/metrics").content.decode())
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    explained = set(re.findall(r"`(rtspsite_[a-z_]+)", (ROOT / "docs" / "operations.md").read_text()))
    assert explained == names


# --- what it costs --------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [0, 1, 50])
def test_the_number_of_queries_does_not_grow_with_streams(
    streams: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    host = make_host(slots=100)
    for number in range(streams):
        capture = make_capture(f"rtsp://camera.example/s{number}")
        checkpoint(capture, Counters(samples=2), frames=1, host=host)
    with django_assert_num_queries(7):
        found = metrics.read()
    assert len(found.captures) == streams
