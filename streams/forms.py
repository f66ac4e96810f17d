"""What may come in: each field's check, and one sentence with a code for each mistake."""

import re
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.text import capfirst

from . import doors
from .engine import masking
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
from .services import Change, Wish

MAX_USERNAME_LENGTH, MAX_PASSWORD_LENGTH = 100, 150  # together within MAX_USERINFO_LENGTH

# Of an address that cannot be read: what follows the last "@", if nothing in it can be a password.
_HARMLESS = re.compile(
    r"(?P<scheme>[a-z]{1,8}://)?(?:.*@)?(?P<rest>[\w.-]*(?::\d*)?(?:/[\w./~-]*)?)", re.ASCII | re.DOTALL
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
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


class TruthField(forms.Field):
    """True, False, or None where it is left out. JSON has true and false, a form one of these words."""

    _WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}

    def to_python(self, value: Any) -> bool | None:
        if value in self.empty_values:
            return None
        if str(value).strip().lower() not in self._WORDS:
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return self._WORDS[str(value).strip().lower()]


class CredentialField(forms.CharField):
    """Taken as it is typed: spaces count, and nothing in it is decoded."""

    def __init__(self, name: str, max_length: int) -> None:
        words = f"{name} must be at most {max_length} characters, without line breaks or other control characters."
        super().__init__(required=False, strip=False, max_length=max_length, error_messages=texts(words))

    def to_python(self, value: Any) -> str:
        text: str = super().to_python(value) or ""
        if _CONTROL.search(text):
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return text


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
    username = CredentialField("username", MAX_USERNAME_LENGTH)
    password = CredentialField("password", MAX_PASSWORD_LENGTH)
    verify_certificate = TruthField(required=False, error_messages=texts("verify_certificate must be true or false."))

    def full_clean(self) -> None:
        masking.remember(self.data.get("username") or "", [self.data.get("password") or ""])
        super().full_clean()

    def clean_rtsp_url(self) -> Address:
        try:
            address = parse(self.cleaned_data["rtsp_url"])
            check_literal(address, settings.CAPTURE_ALLOWED_NETWORKS)
        except CaptureError as error:
            raise ValidationError(str(error), code=error.code) from None
        masking.learn(address.secret)
        return address

    def clean(self) -> None:
        """The address with the credentials that were given apart."""
        address = self.cleaned_data.get("rtsp_url")
        username, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if not isinstance(address, Address) or not (username or password):
            return
        for name, own in (("username", address.username), ("password", address.password)):
            if own is not None and self.cleaned_data.get(name):
                words = f"{name} is in the address and apart: give it once."
                self.add_error(name, ValidationError(words, code="credentials_twice"))
        if self.errors.keys() & {"username", "password"}:
            return
        try:
            whole = address.with_credentials(username or address.username, password or address.password)
        except CaptureError as error:
            self.add_error("password", ValidationError(str(error), code="invalid"))
        else:
            masking.learn(whole.secret)
            self.cleaned_data["rtsp_url"] = whole

    def wish(self) -> Wish:
        """What the valid form asks for."""
        return self._settings().applied(Wish(self.cleaned_data["rtsp_url"]))

    def _settings(self) -> Change:
        """What was given of the settings and the name."""
        data = self.cleaned_data
        return Change(
            interval_s=data["interval"],
            count=data["count"],
            transport=data["transport"] or None,
            name=data["name"] or None,
            verify_certificate=data["verify_certificate"],
        )


class ChangeForm(StartForm):
    """As StartForm; what is left out stays as it is. Credentials that are given and empty go."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["rtsp_url"].required = False

    def clean_rtsp_url(self) -> Address | None:  # type: ignore[override]
        return super().clean_rtsp_url() if "rtsp_url" in self.data else None

    def change(self) -> Change:
        """What the valid form asks for."""
        data = self.cleaned_data
        if data["rtsp_url"]:
            return replace(self._settings(), address=data["rtsp_url"])
        given = {name: data[name] for name in ("username", "password") if name in self.data}
        return replace(self._settings(), **given)


class StreamForm(StartForm):
    """The same fields as a person fills them in. What is shown again of an address holds no credential."""

    _LABELS = {
        "rtsp_url": (
            "Camera address",
            "rtsp:// or rtsps://, with or without user name and password. "
            "If the address is known, empty fields keep their stored values.",
        ),
        "interval": (
            "Interval in seconds",
            f"{MIN_INTERVAL_S:g} to {MAX_INTERVAL_S:g}; {DEFAULT_INTERVAL_S:g} if new.",
        ),
        "count": (
            "Frames to keep",
            f"The brightest, 1 to {MAX_COUNT}; {DEFAULT_COUNT} if new.",
        ),
        "name": ("Name", "If left empty: the last part of the address."),
        "transport": ("Transport", ""),
        "username": ("User name", "If the camera asks for one, and the address has none."),
        "password": ("Password", "Enter it as is; no escaping. It is never shown again."),
        "verify_certificate": (
            "Camera's certificate",
            "For rtsps://. Without verification anyone on the network path can read the password.",
        ),
    }
    # Nothing is chosen as the form comes: a setting that nobody touched must not replace a known camera's.
    _CHOICES = {
        "transport": [("", "As stored; TCP if new"), *Transport.choices],
        "verify_certificate": [("", "As stored; verified if new"), ("true", "Verified"), ("false", "Not verified")],
    }
    _HINTS: dict[str, dict[str, str | int]] = {
        "rtsp_url": {"placeholder": "rtsp://user:password@camera.example:554/garden", "inputmode": "url"},
        "interval": {"inputmode": "decimal", "placeholder": f"{DEFAULT_INTERVAL_S:g}"},
        "count": {"inputmode": "numeric", "placeholder": DEFAULT_COUNT},
        "name": {"maxlength": MAX_NAME_LENGTH},
        "transport": {},
        "username": {"maxlength": MAX_USERNAME_LENGTH},
        "password": {"maxlength": MAX_PASSWORD_LENGTH},
        "verify_certificate": {},
    }

    def __init__(self, data: dict[str, str] | None = None) -> None:
        super().__init__(data)
        self.fields["rtsp_url"].error_messages["required"] = "The address of the camera is missing: rtsp://host/path."
        self.has_hidden_credentials = False
        """Whether something of the address is not shown again, and has to be typed again."""
        for name, (label, help_text) in self._LABELS.items():
            field = self.fields[name]
            field.label, field.help_text = label, help_text
            if name in self._CHOICES:
                field.widget = forms.Select(choices=self._CHOICES[name])
            else:
                box = forms.PasswordInput if name == "password" else forms.TextInput
                field.widget = box(attrs={"autocapitalize": "none", "spellcheck": "false"})
            completed = "new-password" if name == "password" else "off"
            field.widget.attrs.update({"autocomplete": completed, **self._HINTS[name]})

    def full_clean(self) -> None:
        super().full_clean()
        self._begin_with_capitals()
        if self.is_bound:
            shown, self.has_hidden_credentials = self._shown_again(self.data.get("rtsp_url", ""))
            # An address that was pasted into a wrong field is not shown again at all.
            others = {name: value for name, value in self.data.items() if "@" not in value}
            self.has_hidden_credentials |= any(self.data.get(name) for name in ("username", "password"))
            self.data = {**others, "username": "", "password": "", "rtsp_url": shown}
        for name in list(self.errors)[:1]:
            self.fields[name].widget.attrs["autofocus"] = True

    def _begin_with_capitals(self) -> None:
        """For sentences that begin with the field's name: one that begins with a stream's name stays as it is."""
        for name, errors in self.errors.as_data().items():
            for error in errors:
                if str(error.message).startswith(f"{name} "):
                    error.message = capfirst(error.message)

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
        return bool(self.errors.keys() - {"rtsp_url", "interval", "username", "password"})


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


def unknown_fields(form: forms.Form, given: Iterable[str]) -> dict[str, dict[str, str]]:
    """A mistake for each given field that the form does not have: a field that is misspelled must not be ignored."""
    return {name: _unknown_field(form, name) for name in map(_shown, given) if name not in form.fields}


def fields_of_query(given: Iterable[str]) -> dict[str, dict[str, str]]:
    """A mistake for each field in the query string of a call that reads its body alone."""
    words = "This call does not read the query string: send {} in the body."
    return {name: {"code": "unknown_field", "message": words.format(name)} for name in map(_shown, given)}


def _shown(name: str) -> str:
    """Without what follows an "&" that was typed into an address: it may be the rest of a password."""
    return MASK if "@" in name else doors.shown(name)


def _unknown_field(form: forms.Form, name: str) -> dict[str, str]:
    near = get_close_matches(name, form.fields, n=1)
    meant = f": did you mean {near[0]}?" if near else "."
    takes = f"It takes {', '.join(form.fields)}." if form.fields else "It takes none."
    has_not = f"This call has no field {name}{meant}" if name else "A field in it has no name."
    return {"code": "unknown_field", "message": f"{has_not} {takes}"}


def _sentence(field: str, error: dict[str, str]) -> str:
    if error["code"] == "null_characters_not_allowed":
        return f"{field} must not hold a NUL character."
    return error["message"]


def _code(field: str, code: str) -> str:
    if code == "required":
        return "missing"
    if code in ("address_refused", "invalid_url", "credentials_twice"):
        return code
    return "invalid_url" if field == "rtsp_url" else f"invalid_{field}"
