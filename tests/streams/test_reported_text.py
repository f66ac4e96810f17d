"""Text that no form has checked: it fits its column and can be stored, whatever a recorder or camera reports."""

import pytest
from django.core.management import call_command

from streams import claims, services
from streams.engine.notices import Notice
from streams.engine.report import State, Status
from streams.models import Capture, Host, Stream
from tests.streams.builders import make_capture, make_claim, make_picture, make_report

pytestmark = pytest.mark.django_db
LONG = "The camera said \0 and \ud800 and " + "x" * 400


def stored(row: Stream | Capture) -> str:
    row.refresh_from_db()
    return row.error_text


def assert_is_cut(text: str) -> None:
    assert text.startswith("The camera said ? and ? and xxx")
    assert (len(text), text[-1]) == (300, "…")


def test_a_long_error_does_not_stop_a_checkpoint() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    status = Status(State.RECONNECTING, "e" * 40, LONG, attempt=1)
    report = make_report(make_picture(), status=status)
    assert services.checkpoint(claim, services.Totals(), report) == {1}
    for row in (capture, capture.stream):
        assert_is_cut(stored(row))
        assert row.error_code == "e" * 31 + "…"


def test_a_capture_that_fails_with_a_long_error_ends() -> None:
    capture = make_capture()
    services.fail(make_claim(capture), "undecodable", LONG)
    for row in (capture, capture.stream):
        assert_is_cut(stored(row))
    assert capture.is_finished


def test_an_error_that_was_cut_is_not_written_again() -> None:
    """The row is compared with what would be written: its text was cut, too."""
    capture = make_capture()
    claim = make_claim(capture)
    status = Status(State.RECONNECTING, "stalled", LONG, attempt=1)
    services.checkpoint(claim, services.Totals(), make_report(status=status))
    changed_at = Stream.objects.get().status_at
    services.checkpoint(claim, services.Totals(), make_report(status=status))
    assert Stream.objects.get().status_at == changed_at


def test_notices_without_room_are_left_out_whole() -> None:
    capture = make_capture()
    notices = ",".join([*Notice, *Notice])
    Stream.objects.filter(pk=capture.stream_id).update(notices=notices)
    stream = Stream.objects.get()
    assert len(stream.notices) <= 100
    assert notices.startswith(stream.notices + ",")
    assert list(stream.notice_sentences) == list(Notice)


def test_a_host_name_that_cannot_be_stored_is_changed_and_found_again() -> None:
    name = "north\udcff" + "n" * 200
    first, second = claims.register(name, 1), claims.register(name, 1)
    assert (first.pk, second.epoch) == (second.pk, first.epoch + 1)
    assert Host.objects.get().name == "north?" + "n" * 93 + "…"


def test_the_columns_are_those_of_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("makemigrations", "streams", check=True, dry_run=True)
    assert "No changes" in capsys.readouterr().out
