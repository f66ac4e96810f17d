"""What may come in: each field's check, and one sentence with a code for each mistake."""

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from .engine.address import MASK, MAX_NAME_LENGTH, Address, check_literal, parse
from .engine.errors import CaptureError
from .models import (
    DEFAULT_COUNT,
    DEFAULT_INTERVAL_S,
    MAX_COUNT,
    MAX_INTERVAL_S,
    MIN_INTERVAL_S,
    Transport,
)
from .services import Wish

# Of an address that cannot be read: what follows the last "@", if nothing in it can be a password.
_HARMLESS = re.compile(
    r"(?P<scheme>[a-z]{1,8}://)?(?:.*@)?(?P<rest>[\w.-]*(?::\d*)?(?:/[\w./~-]*)?)", re.ASCII | re.DOTALL
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class PlainNumberField(forms.FloatField):
    """A finite number in plain ASCII: no underscores, no digits of other scripts."""

    def to_python(self, value: Any) -> float | None:  # type: ignore[override]
        if value not in self.empty_values and not _NUMBER.fullmatch(str(value).strip()):
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return super().to_python(value)


class WholeNumberField(forms.IntegerField):
    def to_python(self, value: Any) -> int | None:
        if value not in self.empty_values and not re.fullmatch(r"[+-]?\d{1,9}", str(value).strip(), re.ASCII):
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return super().to_python(value)


def texts(invalid: str, required: str = "") -> dict[str, str]:
    keys = ("invalid", "min_value", "max_value", "max_length", "invalid_choice")
    return dict.fromkeys(keys, invalid) | ({"required": required} if required else {})


class StartForm(forms.Form):
    """The fields of /start. `codes` names the code of each field in error."""

    rtsp_url = forms.CharField(
        error_messages={"required": "rtsp_url is missing: the address of the camera, rtsp://host/path."}
    )
    interval = PlainNumberField(
        required=False,
        min_value=MIN_INTERVAL_S,
        max_value=MAX_INTERVAL_S,
        error_messages=texts(f"interval must be a number of seconds from {MIN_INTERVAL_S:g} to {MAX_INTERVAL_S:g}."),
    )
    count = WholeNumberField(
        required=False,
        min_value=1,
        max_value=MAX_COUNT,
        error_messages=texts(f"count must be a whole number of frames from 1 to {MAX_COUNT}."),
    )
    name = forms.RegexField(
        re.compile(rf"\A[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_LENGTH - 1}}}\Z"),
        required=False,
        error_messages=texts(f"name must be 1 to {MAX_NAME_LENGTH} letters, digits, dots, dashes or underscores."),
    )
    transport = forms.ChoiceField(
        choices=Transport.choices, required=False, error_messages=texts("transport must be tcp or udp.")
    )

    def clean_rtsp_url(self) -> Address:
        try:
            address = parse(self.cleaned_data["rtsp_url"])
            check_literal(address)
        except CaptureError as error:
            raise ValidationError(str(error), code=error.code) from None
        return address

    def wish(self) -> Wish:
        """What the valid form asks for."""
        data = self.cleaned_data
        return Wish(
            address=data["rtsp_url"],
            interval_s=DEFAULT_INTERVAL_S if data["interval"] is None else data["interval"],
            count=data["count"] or DEFAULT_COUNT,
            transport=data["transport"] or Transport.TCP.value,
            name=data["name"],
        )


class StreamForm(StartForm):
    """The same fields as a person fills them in. What is shown again of an address holds no credential."""

    _LABELS = {
        "rtsp_url": (
            "Camera address",
            "rtsp:// or rtsps://, with user name and password if the camera asks for them.",
        ),
        "interval": (
            "Interval in seconds",
            f"From one sample to the next: {MIN_INTERVAL_S:g} to {MAX_INTERVAL_S:g}.",
        ),
        "count": ("Frames to keep", f"1 to {MAX_COUNT}, the brightest."),
        "name": ("Name", "If left empty: the last part of the address."),
        "transport": ("Transport", ""),
    }
    _HINTS: dict[str, dict[str, str | int]] = {
        "rtsp_url": {"placeholder": "rtsp://user:password@camera.example:554/garden", "inputmode": "url"},
        "interval": {"inputmode": "decimal"},
        "count": {"inputmode": "numeric"},
        "name": {"maxlength": MAX_NAME_LENGTH},
        "transport": {},
    }

    def __init__(self, data: dict[str, str] | None = None) -> None:
        initial = {"interval": f"{DEFAULT_INTERVAL_S:g}", "count": DEFAULT_COUNT, "transport": Transport.TCP}
        super().__init__(data, initial=initial)
        self.fields["rtsp_url"].error_messages["required"] = "The address of the camera is missing: rtsp://host/path."
        self.has_hidden_credentials = False
        """Whether something of the address is not shown again, and has to be typed again."""
        for name, (label, help_text) in self._LABELS.items():
            field = self.fields[name]
            field.label, field.help_text = label, help_text
            if name != "transport":
                field.widget = forms.TextInput(attrs={"autocapitalize": "none", "spellcheck": "false"})
            field.widget.attrs.update({"autocomplete": "off", **self._HINTS[name]})

    def full_clean(self) -> None:
        super().full_clean()
        if self.is_bound:
            shown, self.has_hidden_credentials = self._shown_again(self.data.get("rtsp_url", ""))
            # An address that was pasted into a wrong field is not shown again at all.
            others = {name: value for name, value in self.data.items() if "@" not in value}
            self.data = {**others, "rtsp_url": shown}
        for name in list(self.errors)[:1]:
            self.fields[name].widget.attrs["autofocus"] = True

    def _shown_again(self, typed: str) -> tuple[str, bool]:
        """The address without credentials, and whether it had any."""
        address: Address | None = self.cleaned_data.get("rtsp_url")
        if address is None:
            found = _HARMLESS.fullmatch(typed)
            shown = f"{found['scheme'] or ''}{found['rest']}" if found else ""
            return shown, shown != typed
        if not address.secret:
            return address.public, False
        return ("" if MASK in address.public else address.public), True

    @property
    def is_unfolded(self) -> bool:
        """Whether one of the fields that are folded away has an error."""
        return bool(self.errors.keys() - {"rtsp_url", "interval"})


class StopForm(forms.Form):
    process_name = forms.CharField(
        error_messages={"required": "process_name is missing: the name that /start answered with."}
    )


def mistakes(form: forms.Form) -> dict[str, dict[str, str]]:
    """One sentence and one code for each field in error: `{"interval": {"code": ..., "message": ...}}`."""
    found = {}
    for field, errors in form.errors.get_json_data().items():
        first = errors[0]
        found[field] = {"code": _code(field, str(first["code"])), "message": _sentence(field, first)}
    return found


def _sentence(field: str, error: dict[str, str]) -> str:
    if error["code"] == "null_characters_not_allowed":
        return f"{field} must not hold a NUL character."
    return error["message"]


def _code(field: str, code: str) -> str:
    if code == "required":
        return "missing"
    if code in ("address_refused", "invalid_url"):
        return code
    return "invalid_url" if field == "rtsp_url" else f"invalid_{field}"
