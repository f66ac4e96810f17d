"""`manage.py streams`: the running service at a terminal."""

import io
import json
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from streams import outcomes, services
from streams.engine.report import Counters, State, Status
from streams.exits import Exit
from streams.management.commands.streams import EPILOG, table, uptime
from streams.models import Capture, Stream
from streams.models import Status as StreamStatus
from tests.streams.builders import (
    SECRET,
    URL,
    URL_WITH_SECRET,
    make_capture,
    make_claim,
    make_finished,
    make_host,
    make_report,
    record,
    rows,
)
from tests.streams.processes import manage

NO_HOST = "No supervisor is running: nothing is captured until one is.\n"


def streams(*arguments: str) -> tuple[str, str]:
    """What it says, and what it says on standard error, where it ends with 0."""
    said, told = io.StringIO(), io.StringIO()
    call_command("streams", *arguments, stdout=said, stderr=told, no_color=True)
    return said.getvalue(), told.getvalue()


def data(*arguments: str) -> Any:
    return json.loads(streams(*arguments, "--json")[0])


def ended(*arguments: str) -> tuple[int, str, str]:
    """Exit code, sentence and what was said, where it does not end with 0."""
    said = io.StringIO()
    try:
        call_command("streams", *arguments, stdout=said, stderr=io.StringIO())
    except CommandError as error:
        return error.returncode, str(error), said.getvalue()
    except SystemExit as end:
        return int(end.code or 0), "", said.getvalue()
    raise AssertionError("it ended well")


def set_status(capture: Capture, status: Status, samples: int = 0) -> None:
    """As its recorder reports it."""
    report = make_report(status=status, counters=Counters(samples=samples, connections=1))
    services.checkpoint(make_claim(capture), services.Totals(), report)


# --- list and show --------------------------------------------------------------------------------


@pytest.mark.django_db
def test_it_lists_streams_in_aligned_columns() -> None:
    assert streams() == ("There is no stream yet.\n", NO_HOST)
    make_finished("rtsp://camera.example/done", frames=3)
    make_capture("rtsp://camera.example/waits")
    failing = make_capture(f"rtsp://admin:{SECRET}@camera.example/front-door")
    soon = timezone.now().timestamp() + 45
    set_status(failing, Status(State.RECONNECTING, "auth_refused", "The camera refused.", 1, soon), samples=1234)
    said, told = streams("list")
    assert told == "", "a host lives"
    lines = said.splitlines()
    assert lines[0].split() == ["NAME", "STATUS", "SAMPLES", "UPTIME", "ERROR"]
    cells = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert cells["done"] == ["idle", "3", "-", "-"]
    assert cells["front-door"][:3] == ["reconnecting", "1234", cells["front-door"][2]]
    assert cells["front-door"][3:6] == ["auth_refused,", "again", "in"]
    assert 30 < int(cells["front-door"][6]) <= 45
    assert cells["waits"][:2] == ["queued", "0"]
    assert SECRET not in said
    column = lines[0].index("STATUS")
    assert {line[column : column + 2] for line in lines[1:]} == {"re", "qu", "id"}, "not aligned"


@pytest.mark.django_db
def test_an_error_that_is_over_is_not_listed_while_it_captures() -> None:
    capture = make_capture(URL)
    set_status(capture, Status(State.CAPTURING))
    Stream.objects.update(error_code="closed", error_text="The camera ended the connection.")
    assert streams()[0].splitlines()[1].endswith("  -")
    assert "closed: The camera ended the connection." in streams("show", "demo")[0]


@pytest.mark.django_db
def test_a_listed_stream_as_json() -> None:
    make_host()
    capture = make_capture(URL_WITH_SECRET, interval_s=2.5)
    (listed,) = data()
    assert listed == {
        "uptime_s": None,
        "process_name": "demo",
        "status": "queued",
        "url": URL,
        "interval": 2.5,
        "count": 9,
        "transport": "tcp",
        "verify_certificate": True,
        "capture": capture.pk,
        "samples": 0,
        "error": None,
        "next_attempt_at": None,
        "notices": {},
    }
    assert json.loads(streams("--json", "list")[0])[0]["process_name"] == "demo", "--json before the word, too"


@pytest.mark.django_db
def test_a_stream_is_shown_with_its_latest_capture_and_frames() -> None:
    make_finished(URL_WITH_SECRET, frames=4)
    said, _ = streams("show", "demo")
    facts = dict(line.split("  ", 1) for line in said.splitlines())
    assert facts["url"].strip() == URL
    assert facts["frames"].strip() == "4 of 9: 104.0 103.0 102.0 101.0"
    assert "Not enough frames were captured: 4 of 9." in said
    shown = data("show", "demo")
    assert shown["latest"]["code"] == "not_enough_frames"
    assert [frame["score"] for frame in shown["latest"]["frames"]] == [104, 103, 102, 101]
    assert SECRET not in said + json.dumps(shown)


@pytest.mark.django_db
def test_a_capture_is_up_from_its_first_sample_on() -> None:
    capture = make_capture(URL)
    Capture.objects.update(started_at=timezone.now() - timedelta(minutes=6, seconds=38))
    assert "  started 0:06:3" in streams()[0].splitlines()[1]
    assert "started 0:06:3" in streams("show", "demo")[0]
    record(capture, frames=1)
    assert "  0:06:3" in streams()[0].splitlines()[1]
    (listed,) = data()
    assert listed["uptime_s"] >= 398


@pytest.mark.django_db
def test_a_running_stream_is_shown_with_its_captures_own_settings() -> None:
    make_capture(URL, interval_s=2.5, count=4)
    Stream.objects.update(interval_s=30, count=7, transport="udp")
    assert "every 2.5 s, 4 frames, tcp" in streams("show", "demo")[0]
    (listed,) = data()
    assert (listed["interval"], listed["count"], listed["transport"]) == (2.5, 4, "tcp")


@pytest.mark.parametrize("words", [("show", "nobody"), ("start", "nobody"), ("stop", "nobody")])
@pytest.mark.django_db
def test_a_name_that_nobody_has_is_told(words: Sequence[str]) -> None:
    code, words_, said = ended(*words, "--json")
    assert code == Exit.UNKNOWN
    assert "No stream is called 'nobody'." in words_
    assert json.loads(said)["code"] == "unknown_process"


# --- start ----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_address_is_started_as_by_the_website() -> None:
    make_host()
    settings = ("--interval", "2.5", "--count", "4", "--transport", "udp")
    said, told = streams("start", URL_WITH_SECRET, *settings, "--name", "door")
    assert (said, told) == ("Video stream started: process_name=door interval=2.5 count=4 status=queued\n", "")
    stream = Stream.objects.get()
    assert (stream.url, stream.interval_s, stream.count, stream.transport) == (URL, 2.5, 4, "udp")
    assert stream.address.password == SECRET
    again = data("start", URL_WITH_SECRET, *settings)
    assert (again["is_new"], again["process_name"], again["message"]) == (
        False,
        "door",
        "Video stream is already running",
    )
    assert Capture.objects.count() == 1


@pytest.mark.django_db
def test_nobody_to_capture_and_no_slot_are_told() -> None:
    assert streams("start", URL)[1] == NO_HOST
    make_host(slots=0)
    assert streams("start", "rtsp://camera.example/two")[1] == "No host has a slot (CAPTURE_SLOTS).\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["http://camera.example/demo"], "invalid_url"),
        (["rtsp://169.254.169.254/demo"], "address_refused"),
        ([URL, "--interval", "0"], "invalid_interval"),
        ([URL, "--count", "x"], "invalid_count"),
        ([URL, "--name", "a b"], "invalid_name"),
        ([URL, "--transport", "http"], "invalid_transport"),
        ([URL, "--password-stdin"], "invalid_url"),
    ],
)
@pytest.mark.django_db
def test_wrong_input_is_told_with_its_field_and_starts_nothing(arguments: Sequence[str], code: str) -> None:
    exit_code, words, said = ended("start", *arguments, "--json")
    told = json.loads(said)
    assert exit_code == Exit.USAGE
    assert (told["code"], [mistake["code"] for mistake in told["fields"].values()]) == (code, [code])
    assert words == f"{told['message']} ({code})"
    assert rows() == (0, 0, 0)


@pytest.mark.django_db
def test_a_known_stream_is_started_by_its_name() -> None:
    make_finished(URL_WITH_SECRET, count=4)
    started = data("start", "demo")
    assert (started["is_new"], started["count"]) == (True, 4)
    assert Stream.objects.get().address.password == SECRET
    services.stop(Stream.objects.get())
    services.finish(started["capture"])
    changed = data("start", "demo", "--interval", "7")
    assert (changed["interval"], changed["count"]) == (7, 4)
    assert Stream.objects.get().address.password == SECRET


@pytest.mark.parametrize(
    ("arguments", "username", "password"),
    [
        (["--password-stdin"], "admin", "n3w p@ss "),
        (["--username", "guest", "--password-stdin"], "guest", "n3w p@ss "),
        (["--username", "guest"], "guest", SECRET),
    ],
    ids=["password", "both", "user"],
)
@pytest.mark.django_db
def test_a_known_stream_takes_other_credentials(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], username: str, password: str
) -> None:
    make_finished(URL_WITH_SECRET)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n3w p@ss \n"))
    assert data("start", "demo", *arguments)["is_new"]
    address = Stream.objects.get().address
    assert (address.username, address.password) == (username, password)


@pytest.mark.django_db
def test_a_user_name_apart_goes_with_an_address_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("p@ss/w%40rd\n"))
    data("start", URL, "--username", "ad:min", "--password-stdin", "--no-verify-certificate")
    stream = Stream.objects.get()
    assert (stream.address.username, stream.address.password) == ("ad:min", "p@ss/w%40rd")
    assert not stream.verify_certificate
    code, words, _ = ended("start", "rtsp://admin@camera.example/other", "--username", "guest")
    assert (code, "in the address and apart" in words) == (Exit.USAGE, True)


@pytest.mark.django_db
def test_a_certificate_that_was_not_verified_can_be_verified_again() -> None:
    for argument, is_verified in (("--no-verify-certificate", False), ("--verify-certificate", True)):
        data("start", URL, argument)
        assert Stream.objects.get().verify_certificate is is_verified
        Capture.objects.update(finished_at=timezone.now())


@pytest.mark.django_db
def test_what_contradicts_a_running_stream_is_refused() -> None:
    make_capture(URL)
    code, words, said = ended("start", "demo", "--interval", "7", "--json")
    assert code == Exit.REFUSED
    assert json.loads(said)["code"] == "already_running"
    assert "demo is already running with interval 1 s (you asked for 7 s)" in words
    assert ended("start", "rtsp://camera.example/other", "--name", "demo")[0] == Exit.REFUSED


# --- stop -----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_stop_does_not_wait_unless_told_to() -> None:
    make_host()
    make_capture(URL)
    assert streams("stop", "demo") == ("demo: The capture is being finished.\n", "")
    assert Stream.objects.get().status == StreamStatus.STOPPING
    code, _, said = ended("stop", "demo", "--wait", "--timeout", "0.1")
    assert (code, said) == (Exit.NOT_YET, "demo: The capture is being finished.\n")


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon"])
def test_a_time_to_wait_is_one(seconds: str) -> None:
    with pytest.raises(CommandError, match="must be seconds from 0 to 86400"):
        call_command("streams", "stop", "demo", "--wait", "--timeout", seconds)


@pytest.mark.django_db
def test_ctrl_c_ends_the_wait_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    make_capture(URL)
    monkeypatch.setattr(outcomes, "POLL_S", 0.05)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have what they run behind ignore it
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    code, words, _ = ended("stop", "demo", "--wait")
    timer.join()
    assert (code, words) == (Exit.KILLED, "Ended at once. What was begun goes on.")
    assert Stream.objects.get().status == StreamStatus.STOPPING


@pytest.mark.parametrize(("frames", "code"), [(9, Exit.DONE), (4, Exit.NOT_ENOUGH_FRAMES), (0, Exit.NO_FRAME)])
@pytest.mark.django_db
def test_the_grid_of_a_finished_capture_is_written(tmp_path: Path, frames: int, code: Exit) -> None:
    make_finished(URL, frames=frames)
    grid = tmp_path / "grid.jpg"
    if code is Exit.DONE:
        assert data("stop", "demo", "--output", str(grid))["code"] == "complete"
    else:
        found, words, said = ended("stop", "demo", "--output", str(grid))
        assert (found, words) == (code, ""), "no traceback and no second sentence"
        assert said == f"demo: Not enough frames were captured: {frames} of 9.\n"
    assert grid.exists() == (frames > 0)
    assert not frames or cv2.imread(str(grid)) is not None


@pytest.mark.django_db
def test_all_captures_are_stopped_at_once() -> None:
    for name in ("one", "two", "three"):
        make_capture(f"rtsp://camera.example/{name}")
    services.stop(Stream.objects.get(name="two"))
    assert [result["process_name"] for result in data("stop", "--all")] == ["one", "three"]
    assert not Capture.objects.filter(stop_requested_at=None).exists()
    assert streams("stop", "--all")[0] == "Nothing is being captured.\n"


@pytest.mark.django_db
def test_a_stop_that_cannot_work_stops_nothing(tmp_path: Path) -> None:
    make_capture(URL)
    make_capture("rtsp://camera.example/two")
    assert ended("stop")[0] == Exit.USAGE
    assert ended("stop", "demo", "--all")[0] == Exit.USAGE
    assert ended("stop", "demo", "two", "--output", str(tmp_path / "grid.jpg"))[0] == Exit.USAGE
    assert ended("stop", "demo", "--output", str(tmp_path / "nowhere" / "grid.jpg"))[0] == Exit.CANNOT_WRITE
    assert ended("stop", "demo", "nobody")[0] == Exit.UNKNOWN
    assert not Capture.objects.exclude(stop_requested_at=None).exists()


@pytest.mark.django_db
def test_a_stream_without_a_capture_is_told() -> None:
    Stream.objects.create(name="idle", url=URL)
    code, words, _ = ended("stop", "idle")
    assert (code, "idle has no capture" in words) == (Exit.UNKNOWN, True)


# --- how it looks ---------------------------------------------------------------------------------


def test_figures_stand_on_the_right() -> None:
    rows_ = [("NAME", "N", "LAST"), ("a", "1", "x"), ("long-name", "1000", "-"), ("b", "-", "y")]
    assert table(rows_) == ["NAME          N  LAST", "a             1  x", "long-name  1000  -", "b             -  y"]


def test_uptime_is_read_at_a_glance() -> None:
    assert [uptime(s) for s in (None, 0, 59.9, 3_723, 90_061)] == [
        "-",
        "0:00:00",
        "0:00:59",
        "1:02:03",
        "1 d 1:01:01",
    ]


def test_the_help_has_every_exit_code() -> None:
    told = {line.split()[0] for line in EPILOG.partition("exit codes:")[2].splitlines() if line.strip()}
    assert told == {str(int(code)) for code in Exit}


def test_a_database_that_was_never_prepared_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = manage(tmp_path, "streams")
    assert done.returncode == Exit.FAILED
    assert done.stderr.startswith("CommandError: The database is away or not migrated: ")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
