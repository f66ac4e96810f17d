"""The calls: what each reads or has done, and how it answers."""

from functools import partial
from typing import Any

from django.http import HttpRequest
from ninja import P, PathEx, Router, Status

from .. import links, models, outcomes, queries, services
from ..forms import ChangeForm, StartForm, StopForm
from . import documented, inputs, schemas
from .built import Builder
from .errors import Unknown
from .forms import DEFAULT_LIMIT, CapturesForm, NoForm, StreamsForm

router = Router()
call = partial(documented.call, router)

STREAMS, CAPTURES, RUNNING, LIVE, LINKS = "Streams", "Captures", "Start and stop", "Live", "Links"
CAMERA = {"rtsp_url": "rtsp://camera.example:8554/demo", "username": "viewer", "password": "s3cret-Lamp"}
RESULTS = {"ok": schemas.Result, "unfinished": schemas.Result, "too_few": schemas.Result}
StreamName = PathEx[str, P(description="Of the stream.", example="demo")]
CaptureId = PathEx[int, P(description="Of the capture.", example=12)]
_RESULT_STATUS = {"complete": 200, "not_enough_frames": 409}


# --- live -----------------------------------------------------------------------------------------


@call("GET", "/status", "How everything stands now", tag=LIVE, answers={"ok": schemas.Live})
def status(request: HttpRequest) -> schemas.Live:
    inputs.query(request, NoForm)
    return Builder(request).live()


# --- streams --------------------------------------------------------------------------------------


@call("GET", "/streams", "List streams", tag=STREAMS, answers={"ok": schemas.Page[schemas.Stream]}, form=StreamsForm)
def streams(request: HttpRequest) -> Any:
    """By name."""
    given = inputs.query(request, StreamsForm).cleaned_data
    found = queries.streams_like(status=given["status"], text=given["text"])
    after, limit = given["after"], given["limit"] or DEFAULT_LIMIT
    builder = Builder(request)
    items = builder.streams((found.filter(name__gt=after) if after else found)[: limit + 1])
    return schemas.Page[schemas.Stream](
        items=items[:limit],
        total=found.count(),
        next=builder.next_page(after=items[limit - 1].name) if len(items) > limit else None,
    )


@call(
    "POST",
    "/streams",
    "Create a stream without starting it",
    409,
    tag=STREAMS,
    answers={"created": schemas.Stream},
    form=StartForm,
    example={**CAMERA, "interval": 2},
)
def create_stream(request: HttpRequest) -> Any:
    """Its name is the last part of the address unless one is given. 409: the address or the name is another
    stream's, or there are as many streams as there may be."""
    created = services.create_stream(inputs.body(request, StartForm).wish())
    return Status(201, Builder(request).stream(pk=created.pk))


@call("GET", "/streams/{str:name}", "Read a stream", 404, tag=STREAMS, answers={"ok": schemas.Stream})
def stream(request: HttpRequest, name: StreamName) -> schemas.Stream:
    inputs.query(request, NoForm)
    return Builder(request).stream(name=name)


@call(
    "PATCH",
    "/streams/{str:name}",
    "Change a stream that is at rest",
    404,
    409,
    tag=STREAMS,
    answers={"ok": schemas.Stream},
    form=ChangeForm,
    example={"interval": 5, "count": 16},
)
def change_stream(request: HttpRequest, name: StreamName) -> schemas.Stream:
    """What is left out stays as it is. An address brings its credentials, in it or beside it: without any it takes
    away those that there were, so that no password goes to another camera. Without an address `password` alone goes
    with the user name that there is, and null takes it away; `username` null takes both away.
    409: it is being captured, or the address or the name is another stream's, or what shall stay cannot be read."""
    form = inputs.body(request, ChangeForm)
    changed = services.change_stream(_stream(name), form.change())
    return Builder(request).stream(pk=changed.pk)


@call(
    "DELETE",
    "/streams/{str:name}",
    "Delete a stream with all its captures",
    404,
    409,
    tag=STREAMS,
    answers={"gone": None},
)
def delete_stream(request: HttpRequest, name: StreamName) -> Any:
    """Its captures, frames and files go, too. 409: it is being captured."""
    inputs.body(request, NoForm)
    services.delete_stream(_stream(name))
    return Status(204, None)


# --- captures -------------------------------------------------------------------------------------


@call(
    "GET",
    "/captures",
    "List captures",
    tag=CAPTURES,
    answers={"ok": schemas.Page[schemas.Capture]},
    form=CapturesForm,
)
def captures(request: HttpRequest) -> Any:
    """Newest first."""
    given = dict(inputs.query(request, CapturesForm).cleaned_data)
    after, limit = given.pop("after"), given.pop("limit") or DEFAULT_LIMIT
    given["state"] = given["state"].replace("_", " ")
    found = queries.captures_like(**given)
    builder = Builder(request)
    items = builder.captures((found.filter(pk__lt=after) if after else found)[: limit + 1])
    return schemas.Page[schemas.Capture](
        items=items[:limit],
        total=found.count(),
        next=builder.next_page(after=items[limit - 1].id) if len(items) > limit else None,
    )


@call("GET", "/captures/{int:capture_id}", "Read a capture", 404, tag=CAPTURES, answers={"ok": schemas.CaptureInFull})
def capture(request: HttpRequest, capture_id: CaptureId) -> schemas.CaptureInFull:
    """With its frames and its timeline."""
    inputs.query(request, NoForm)
    return Builder(request).capture_in_full(_capture(capture_id))


@call(
    "GET",
    "/captures/{int:capture_id}/frames",
    "Frames of a capture",
    404,
    tag=CAPTURES,
    answers={"ok": schemas.Frames},
)
def frames(request: HttpRequest, capture_id: CaptureId) -> schemas.Frames:
    """Best first: the present ones of a capture in progress."""
    inputs.query(request, NoForm)
    return schemas.Frames(items=Builder(request).frames(_capture(capture_id)))


# --- start and stop -------------------------------------------------------------------------------


@call(
    "POST",
    "/start",
    "Start by address, as /start",
    409,
    tag=RUNNING,
    answers={"created": schemas.Started, "running": schemas.Started},
    form=StartForm,
    example={**CAMERA, "interval": 2},
)
def start(request: HttpRequest) -> Any:
    """The stream of this address, which is made if there is none. 409: it runs with other settings or is being
    stopped, or the address or the name is another stream's."""
    return _started(services.start(inputs.body(request, StartForm).wish()))


@call(
    "POST",
    "/streams/{str:name}/start",
    "Start a stream with its settings",
    404,
    409,
    tag=RUNNING,
    answers={"created": schemas.Started, "running": schemas.Started},
)
def start_stream(request: HttpRequest, name: StreamName) -> Any:
    """409: it is being stopped, or its password cannot be read with the present keys."""
    inputs.body(request, NoForm)
    return _started(services.start_again(_stream(name)))


@call(
    "POST",
    "/stop",
    "Stop by process_name, as /stop",
    404,
    tag=RUNNING,
    answers=RESULTS,
    form=StopForm,
    example={"process_name": "demo"},
)
def stop(request: HttpRequest) -> Any:
    """Answers when the grid is made, or after 10 s; at once (202) where many wait for one already. Of a stream that
    is at rest: what the last capture came to."""
    name = inputs.body(request, StopForm).cleaned_data["process_name"]
    found = models.Stream.objects.filter(name=name).first()
    if found is None:
        raise Unknown("unknown_process", "No stream has this process_name.")
    return _stopped(found)


@call("POST", "/streams/{str:name}/stop", "Stop a stream", 404, tag=RUNNING, answers=RESULTS)
def stop_stream(request: HttpRequest, name: StreamName) -> Any:
    """Answers when the grid is made, or after 10 s; at once (202) where many wait for one already. Of a stream that
    is at rest: what the last capture came to."""
    inputs.body(request, NoForm)
    return _stopped(_stream(name))


# --- links ----------------------------------------------------------------------------------------


@call(
    "POST",
    "/links",
    "Make a link to a picture for others",
    404,
    tag=LINKS,
    answers={"created": schemas.Link},
    form=links.LinkForm,
    example={"path": "/streams/demo/best.jpg", "expires_in": 3600},
)
def create_link(request: HttpRequest) -> Any:
    """Whoever has it sees this one picture until then, without a token, on a page of another site as well. It cannot
    be taken back but by another SECRET_KEY."""
    made = links.make(request, inputs.body(request, links.LinkForm))
    return Status(201, schemas.Link(path=made.path, url=made.url, expires_at=made.expires_at))


# --- parts of them --------------------------------------------------------------------------------


def _stream(name: str) -> models.Stream:
    found = models.Stream.objects.filter(name=name).first()
    if found is None:
        raise Unknown("unknown_stream", "No stream has this name.")
    return found


def _capture(capture_id: int) -> models.Capture:
    rows = queries.with_frame_count(models.Capture.objects.select_related("stream"))
    found = rows.filter(pk=capture_id).first()
    if found is None:
        raise Unknown("unknown_capture", "There is no capture of this id, or none any more.")
    return found


def _started(started: services.Started) -> Any:
    return Status(201 if started.is_new else 200, schemas.Started(**outcomes.started_data(started)))


def _stopped(stream: models.Stream) -> Any:
    stopped = services.stop(stream)
    stopped = stopped and outcomes.wait_for_grid(stopped)
    if stopped is None:
        raise Unknown("no_capture", f"{stream.name} has no capture: none was made, or all were pruned.")
    result = schemas.Result(**outcomes.result_data(stopped, list(queries.ranked_frames(stopped))))
    return Status(_RESULT_STATUS.get(result.code, 202), result)
