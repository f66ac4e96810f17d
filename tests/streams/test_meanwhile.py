"""What is read can be gone at the next statement: no request is a fault for it."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from streams import services
from streams.models import Capture, Frame, Stream
from tests.streams.builders import API, BROWSER, Response, make_capture, make_finished, record

pytestmark = pytest.mark.django_db


class Meanwhile:
    """Does the work of somebody else right before the how-manieth statement; once."""

    def __init__(self, work: Callable[[], object], before: int) -> None:
        self._work, self._left = work, before
        self._is_working = False

    def __call__(self, execute: Callable[..., Any], *args: Any) -> Any:
        if not self._is_working:
            self._left -= 1
            if self._left == 0:
                self._is_working = True
                self._work()
                self._is_working = False
        return execute(*args)

    @property
    def is_done(self) -> bool:
        return self._left <= 0


def delete_streams() -> None:
    Stream.objects.all().delete()


def prune() -> None:
    Capture.objects.all().delete()


def evict() -> None:
    Frame.objects.all().delete()


READS = (
    "/",
    "/streams/other/",
    "/captures/{running}/",
    "/captures/{over}/",
    "/captures/{over}/grid.jpg",
    "/captures/{over}/capture.zip",
    "/frames/{frame}/small.jpg",
    "/api/status",
    "/api/streams",
    "/api/streams/other",
    "/api/captures",
    "/api/captures/{over}",
    "/api/captures/{over}/frames",
)


@pytest.mark.parametrize("path", READS)
def test_what_is_gone_while_it_is_read_is_no_fault(client: Client, path: str) -> None:
    over = make_finished("rtsp://other.example/other", frames=2)
    running = make_capture()
    record(running, frames=2)
    frame = over.frames.order_by("id")[0]
    address = path.format(over=over.pk, running=running.pk, frame=frame.pk)
    for work in (delete_streams, prune, evict):
        for before in count(1):
            meanwhile, unchanged = Meanwhile(work, before), transaction.savepoint()
            with connection.execute_wrapper(meanwhile):
                answer = client.get(address, headers={"accept": BROWSER})
            transaction.savepoint_rollback(unchanged)
            assert answer.status_code in (200, 404), f"{work.__name__} before statement {before}"
            if not meanwhile.is_done:
                break
        assert before > 1


def stream_of(client: Client, verb: str) -> Response:
    return client.post(f"/streams/demo/{verb}", headers={"accept": BROWSER})


WRITES: dict[str, Callable[[Client], Response]] = {
    "start": lambda client: stream_of(client, "start"),
    "stop": lambda client: stream_of(client, "stop"),
    "api start": lambda client: client.post("/api/streams/demo/start", content_type=API),
    "api stop": lambda client: client.post("/api/streams/demo/stop", content_type=API),
    "api change": lambda client: client.patch("/api/streams/demo", '{"interval": 2}', content_type=API),
    "api delete": lambda client: client.delete("/api/streams/demo"),
}


@pytest.mark.parametrize("write", WRITES)
def test_who_is_told_to_change_what_was_deleted_meanwhile_says_that_it_is_gone(client: Client, write: str) -> None:
    stream = make_finished().stream

    def delete() -> None:
        services.delete_stream(stream)

    with connection.execute_wrapper(Meanwhile(delete, before=2)):  # the first one finds it
        assert WRITES[write](client).status_code == 404
