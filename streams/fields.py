"""Model fields of our own."""

import re
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import models

from .engine import masking
from .engine.address import is_secret

if TYPE_CHECKING:
    TextOfColumn = models.CharField[str, str]
else:
    TextOfColumn = models.CharField

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # PostgreSQL refuses a NUL, and half of a surrogate pair is no UTF-8


class ReportedCharField(TextOfColumn):
    """Short text that no form has checked: what a camera, a recorder or the environment reports.

    It is cut to the column's length, with an ellipsis, and characters that no database stores become "?". Without
    this PostgreSQL refuses the whole checkpoint, again and again. The column is a plain CharField's: no migration.
    """

    def get_prep_value(self, value: Any) -> Any:
        text = super().get_prep_value(value)
        if not isinstance(text, str):
            return text
        text = _UNSTORABLE.sub("?", text)
        limit = self.max_length or len(text)
        return text if len(text) <= limit else self.cut(text, limit)

    def cut(self, text: str, limit: int) -> str:
        return text[: limit - 1] + "…"

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.CharField", args, kwargs


class ReportedCodesField(ReportedCharField):
    """Codes with commas between. Codes at the end that have no room are left out whole."""

    def cut(self, text: str, limit: int) -> str:
        return text[: limit + 1].rpartition(",")[0]


class Sealed(str):
    """Credentials that no key opens, or that are none when they are opened: read as empty."""

    token: str

    def __new__(cls, token: str) -> "Sealed":
        sealed = super().__new__(cls, "")
        sealed.token = token
        return sealed


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]
    """An address's `secret` that is encrypted at rest with MultiFernet: CREDENTIALS_KEYS, newest first.

    Reads as the plain text. What no key opens reads as Sealed: empty, and written back as it was, so that a lost
    key costs no stream and a key that comes back opens what it opened. So does what another version wrote and this
    one cannot read. It cannot be filtered by: each encryption
    of the same text is another one. What this process has read or written is masked in its log from then on.
    """

    def get_prep_value(self, value: Any) -> Any:
        if isinstance(value, Sealed):
            return value.token
        if not value:
            return value
        masking.learn(value)
        return _cipher().encrypt(value.encode()).decode()

    def from_db_value(self, value: str | None, *_: Any) -> str | None:
        if not value:
            return value
        try:
            plain = _cipher().decrypt(value.encode()).decode()
        except InvalidToken:
            return Sealed(value)
        masking.learn(plain)
        return plain if is_secret(plain) else Sealed(value)


def is_newest(token: Sealed) -> bool:
    """Whether it is encrypted with the newest key."""
    try:
        Fernet(settings.CREDENTIALS_KEYS[0]).decrypt(token.token.encode())
    except InvalidToken:
        return False
    return True


def with_newest_key(token: Sealed) -> Sealed | None:
    """The same text, encrypted with the newest key; None if no key opens it."""
    try:
        return Sealed(_cipher().rotate(token.token.encode()).decode())
    except InvalidToken:
        return None


def _cipher() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.CREDENTIALS_KEYS])
