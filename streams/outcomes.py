"""What a start and a stop have come to, as data and sentences: the same at every door."""

import base64
import time
from typing import Any

from django.db.models.fields.files import FieldFile

from . import capacity, facts, queries, services
from .models import Capture, Frame, Status

STOP_WAIT_S = 10.0
POLL_S = 0.05


# --- start ----------------------------------------------------------------------------------------


def started_words(started: services.Started) -> str:
    return "Video stream started" if started.is_new else "Video stream is already running"


def started_data(started: services.Started) -> dict[str, Any]:
    capture, stream = started.capture, started.capture.stream
    room = queries.room()
    return {
        "process_name": stream.name,
        "status": stream.status,
        "url": stream.url,
        "interval": capture.interval_s,
        "count": capture.count,
        "capture": capture.pk,
        "is_new": started.is_new,
        "has_host": room.slots is not None,
        "slots": room.slots or 0,
        "waits_for": room.ahead_of(capture.pk) if stream.status == Status.QUEUED else 0,
        "message": started_words(started),
    }


def why_not_yet(slots: int | None, waits_for: int) -> str:
    """What a capture that is queued waits for; empty if it is about to begin. No slots at all: no host."""
    if slots is None:
        return "No supervisor is running: capturing begins when one is (manage.py supervise)."
    if waits_for == 0:
        return ""
    if slots == 0:
        return "No host has a slot (CAPTURE_SLOTS)."
    return f"All slots are taken ({slots}): capturing begins when {ended(waits_for)}."


def ended(captures: int) -> str:
    return "another capture has ended" if captures == 1 else f"{captures} other captures have ended"


# --- stop -----------------------------------------------------------------------------------------


def wait_for_grid(capture: Capture) -> Capture | None:
    """Wait for STOP_WAIT_S at most, or not at all if half of the website's threads wait already."""
    if capture.is_finished:
        return capture
    if not capacity.WAITERS.acquire(blocking=False):
        return _as_it_is_now(capture)
    try:
        return wait_until_finished(capture, STOP_WAIT_S)
    finally:
        capacity.WAITERS.release()


def wait_until_finished(capture: Capture, wait_s: float) -> Capture | None:
    """The capture as it is then; None if it was finished and pruned at once."""
    found: Capture | None = capture
    limit_s = time.monotonic() + wait_s
    while found and not found.is_finished and time.monotonic() < limit_s:
        time.sleep(POLL_S)
        found = _as_it_is_now(capture)
    return found


def _as_it_is_now(capture: Capture) -> Capture | None:
    return Capture.objects.select_related("stream").filter(pk=capture.pk).first()


def code_of(capture: Capture, frames: int) -> str:
    """How a capture with so many frames stands."""
    if not capture.is_finished:
        return "stopping" if capture.stop_requested_at else "in_progress"
    return "complete" if frames >= capture.count else "not_enough_frames"


def sentence(capture: Capture, frames: int) -> str:
    match code_of(capture, frames):
        case "in_progress":
            return "The capture is in progress."
        case "stopping":
            return "The capture is being finished."
        case "not_enough_frames":
            return f"Not enough frames were captured: {frames} of {capture.count}."
        case _:
            many = f"{capture.count} " if capture.count > 1 else ""
            return f"The {many}brightest of {capture.samples} sample{'' if capture.samples == 1 else 's'}."


def room_for(capture: Capture) -> queries.Room | None:
    """If it waits for some."""
    return None if capture.is_finished or capture.stream.status != Status.QUEUED else queries.room()


def result_data(capture: Capture, frames: list[Frame]) -> dict[str, Any]:
    """`frames` are all of the capture, best first. The grid is inside."""
    room = room_for(capture)
    return {
        "process_name": capture.stream.name,
        "capture": capture.pk,
        "status": "finished" if capture.is_finished else capture.stream.status,
        "next_attempt_at": None if capture.is_finished else capture.stream.next_attempt_at,
        "waits_for": room.ahead_of(capture.pk) if room else 0,
        "notices": {} if capture.is_finished else capture.stream.notice_sentences,
        "code": code_of(capture, len(frames)),
        "message": sentence(capture, len(frames)),
        "started_at": capture.started_at,
        "finished_at": capture.finished_at,
        "samples": capture.samples,
        "count": capture.count,
        "error": facts.problem(capture.error_code, capture.error_text),
        "frames": [
            {
                "rank": rank,
                "score": round(frame.score, 3),
                "captured_at": frame.captured_at,
                "width": frame.width,
                "height": frame.height,
            }
            for rank, frame in enumerate(frames, 1)
        ],
        "grid": data_uri(capture.grid),
    }


def data_uri(image: FieldFile) -> str:
    """The picture itself, for an answer that is one file; empty if there is none."""
    if not image:
        return ""
    try:
        with image.open() as file:
            return "data:image/jpeg;base64," + base64.b64encode(file.read()).decode()
    except OSError:
        return ""
