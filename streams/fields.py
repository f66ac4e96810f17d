"""Model fields of our own."""

from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import models

from .engine import masking
from .engine.address import is_secret


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
