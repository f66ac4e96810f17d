"""Rows that a newer or an older version of the service has written."""

import ast
import inspect
import re
from collections.abc import Callable

import pytest
from django.test import Client

from streams import claims, jobs, services
from streams.engine.notices import Notice
from streams.engine.report import State, Status
from streams.models import Stream
from streams.services import Totals
from tests import previous
from tests.streams.builders import make_capture, make_claim, make_report


def test_a_notice_is_new_if_the_previous_release_does_not_know_it() -> None:
    """Later releases: `words_of` reads any code, so where the previous one has it, nothing has to be new."""
    source = previous.read("streams/engine/notices.py")
    known = set(re.findall(r'^    [A-Z_]+ = "(\w+)"$', source, re.MULTILINE))
    assert "frozen" in known
    can_read_any = "def words_of(" in source
    assert {notice for notice in Notice if notice.is_new} == (set() if can_read_any else set(Notice) - known)


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/streams/demo/", "/api/streams", "/captures/{}/"])
def test_a_notice_that_this_version_does_not_know_is_shown(client: Client, path: str) -> None:
    capture = make_capture()
    Stream.objects.update(notices="frozen,made_of_jelly", status="capturing")
    answer = client.get(path.format(capture.pk), headers={"accept": "*/*"})
    assert answer.status_code == 200
    assert Notice.FROZEN.words in answer.content.decode()
    assert "The capture reports made_of_jelly, which this version does not know." in answer.content.decode()


@pytest.mark.django_db
def test_what_the_previous_release_cannot_read_is_kept_out_of_its_column() -> None:
    services.checkpoint(
        make_claim(make_capture()), Totals(), make_report(status=Status(State.CAPTURING, notices=tuple(Notice)))
    )
    stream = Stream.objects.get()
    assert set(stream.notices.split(",")) == {notice for notice in Notice if not notice.is_new}
    assert set(stream.notice_sentences) == set(Notice)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "end",
    [
        lambda claim: services.stop(Stream.objects.get()),
        lambda claim: services.fail(claim, "refused", "No."),
        lambda claim: services.note_death(claim),
        lambda claim: claims.queue_again([claim.capture_id]),
        lambda claim: services.checkpoint(claim, Totals(), make_report()),
    ],
)
def test_a_new_notice_goes_when_the_others_go(end: Callable[[claims.Claim], object]) -> None:
    claim = make_claim(make_capture())
    services.checkpoint(claim, Totals(), make_report(status=Status(State.CAPTURING, notices=tuple(Notice))))
    end(claim)
    assert Stream.objects.get().notice_sentences == {}


def test_jobs_that_the_previous_release_has_queued_can_be_done() -> None:
    """A queue keeps a function's name and its arguments."""
    source = ast.parse(previous.read("streams/jobs.py"))
    queued = {function.name: function.args for function in source.body if isinstance(function, ast.FunctionDef)}
    assert {"place", "finish", "prune"} <= queued.keys()
    for name, arguments in queued.items():
        most = len(arguments.posonlyargs + arguments.args)
        for count in range(most - len(arguments.defaults), most + 1):
            inspect.signature(getattr(jobs, name)).bind(*range(count))


def test_settings_that_the_previous_release_reads_are_still_read() -> None:
    read = re.compile(r'\benv\.\w+\(\s*"([A-Z0-9_]+)"')
    before = set(read.findall(previous.read("rtspsite/settings.py")))
    assert {"DATABASE_URL", "CAPTURE_SLOTS"} <= before
    assert before <= set(read.findall((previous.ROOT / "rtspsite/settings.py").read_text()))
