"""What may come in by the API alone: filters. The rest is streams/forms.py."""

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from .. import queries
from ..engine.address import MAX_NAME_LENGTH
from ..forms import WholeNumberField, texts
from ..models import Ending, Status

MAX_LIMIT, DEFAULT_LIMIT = 100, 50
MAX_ID = 999_999_999
MAX_TEXT_LENGTH = 200
STATES = [state.replace(" ", "_") for state in queries.CAPTURE_STATES]


class MomentField(forms.DateTimeField):
    """ISO 8601; UTC where no offset is told."""

    def to_python(self, value: Any) -> datetime | None:
        try:
            moment = super().to_python(value)
            return moment and moment.astimezone(UTC)
        except OverflowError:  # in the year 1 or 9999, and the offset leads out of them
            raise ValidationError(self.error_messages["invalid"], code="invalid") from None


class NoForm(forms.Form):
    """Of a call that takes no fields."""


def _limit_field() -> WholeNumberField:
    words = f"limit must be a whole number from 1 to {MAX_LIMIT}."
    return WholeNumberField(required=False, min_value=1, max_value=MAX_LIMIT, error_messages=texts(words))


class StreamsForm(forms.Form):
    status = forms.ChoiceField(
        choices=Status.choices,
        required=False,
        error_messages=texts(f"status must be one of {', '.join(Status.values)}."),
    )
    text = forms.CharField(
        required=False,
        max_length=MAX_TEXT_LENGTH,
        error_messages=texts(f"text must be at most {MAX_TEXT_LENGTH} characters."),
    )
    after = forms.CharField(
        required=False, max_length=MAX_NAME_LENGTH, error_messages=texts("after must be the name of a stream.")
    )
    limit = _limit_field()


class CapturesForm(forms.Form):
    stream = forms.CharField(
        required=False, max_length=MAX_NAME_LENGTH, error_messages=texts("stream must be the name of a stream.")
    )
    state = forms.ChoiceField(
        choices=[(state, state) for state in STATES],
        required=False,
        error_messages=texts(f"state must be one of {', '.join(STATES)}."),
    )
    ending = forms.ChoiceField(
        choices=Ending.choices,
        required=False,
        error_messages=texts(f"ending must be one of {', '.join(Ending.values)}."),
    )
    started_after = MomentField(
        required=False, error_messages=texts("started_after must be a moment: 2026-11-23T12:00:00Z.")
    )
    started_before = MomentField(
        required=False, error_messages=texts("started_before must be a moment: 2026-11-23T12:00:00Z.")
    )
    after = WholeNumberField(
        required=False, min_value=1, max_value=MAX_ID, error_messages=texts("after must be the id of a capture.")
    )
    limit = _limit_field()
