"""Model fields of our own."""

from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import models


class Sealed(str):
    """Text that no key opens: reads as empty."""

    token: str

    def __new__(cls, token: str) -> "Sealed":
        sealed = super().__new__(cls, "")
        sealed.token = token
        return sealed


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]
    """Text that is encrypted at rest with MultiFernet: CREDENTIALS_KEYS, newest first.

    Reads as the plain text. What no key opens reads as Sealed: empty, and written back as it was, so that a lost
    key costs no stream and a key that comes back opens what it opened. It cannot be filtered by: each encryption
    of the same text is another one.
    """

    def get_prep_value(self, value: Any) -> Any:
        if isinstance(value, Sealed):
            return value.token
        return _cipher().encrypt(value.encode()).decode() if value else value

    def from_db_value(self, value: str | None, *_: Any) -> str | None:
        if not value:
            return value
        try:
            return _cipher().decrypt(value.encode()).decode()
        except InvalidToken:
            return Sealed(value)


def _cipher() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.CREDENTIALS_KEYS])
