"""The doors of django-q2: an id in, one service call, a sentence out. A job may run twice, late or never."""

import logging

from django.conf import settings

from . import services

log = logging.getLogger(__name__)


def place(capture_id: int) -> str:
    """Claim the capture for the host that this job runs on, if it has a free slot."""
    is_placed = services.place(capture_id, settings.CAPTURE_HOST_NAME)
    return f"capture {capture_id} {'placed here' if is_placed else 'not placed here'}"


def finish(capture_id: int) -> str:
    """Make the grid of a capture that was stopped and whose recorder has handed everything over."""
    is_finished = services.finish(capture_id)
    return f"capture {capture_id} {'finished' if is_finished else 'not ready to be finished'}"
