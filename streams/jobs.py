"""The doors of django-q2: an id in, one service call, a sentence out. A job may run twice, late or never."""

import logging

from django.conf import settings
from django.db import InterfaceError, OperationalError

from . import database_faults, retention, services

log = logging.getLogger(__name__)


def place(capture_id: int) -> str:
    """Claim the capture for the host that this job runs on, if it has a free slot."""
    try:
        is_placed = services.place(capture_id, settings.CAPTURE_HOST_NAME)
    except (OperationalError, InterfaceError) as error:
        return _left_to_the_tick("place", capture_id, error)
    return f"capture {capture_id} {'placed here' if is_placed else 'not placed here'}"


def finish(capture_id: int) -> str:
    """Make the grid of a capture that was stopped and whose recorder has handed everything over."""
    try:
        is_finished = services.finish(capture_id)
    except OSError as error:  # a storage that is full or away: the supervisor's tick tries again until it is not
        log.error("capture=%s grid failed error=%s", capture_id, error.strerror)
        return f"capture {capture_id} not finished: {error.strerror}"
    except (OperationalError, InterfaceError) as error:
        return _left_to_the_tick("finish", capture_id, error)
    return f"capture {capture_id} {'finished' if is_finished else 'not ready to be finished'}"


def _left_to_the_tick(job: str, capture_id: int, error: Exception) -> str:
    """The database is away, or a lock was not given in time. The request is a row, and the next tick sees it."""
    log.warning("capture=%s job=%s left to the supervisor error=%s", capture_id, job, type(error).__name__)
    return f"capture {capture_id} left to the supervisor: {type(error).__name__}"


def prune(after: int = 0) -> str:
    """Remove what is to go, for half a minute; the next job goes on, with the files of captures after that one.

    One that meets a lock, or no database, is tried again in a minute: the daily one would come a day later.
    """
    try:
        pruned = retention.prune_in_turns(after)
    except (OperationalError, InterfaceError) as error:
        retention.put_off(after)
        fault = database_faults.fault_of(error)
        log.warning("prune put off again_s=%s error=%s", retention.PUT_OFF_S, fault.code)
        return f"put off: {fault.words}"
    files = pruned.capture_files.count + pruned.unknown_files.count
    return f"{pruned.captures} captures and {files} files removed{'' if pruned.is_complete else ', more to do'}"
