"""Credentials at rest: encrypted, rotated, and lost without losing the stream."""

import pytest
from cryptography.fernet import Fernet
from django.db import connection
from pytest_django import Settings

from streams.models import Stream
from tests.streams.builders import SECRET, URL, URL_WITH_SECRET, make_capture

pytestmark = pytest.mark.django_db


def raw() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT credentials FROM streams_stream")
        return str(cursor.fetchone()[0])


def new_key() -> str:
    return Fernet.generate_key().decode()


def test_credentials_are_encrypted_at_rest() -> None:
    make_capture(URL_WITH_SECRET)
    assert SECRET not in raw()
    assert "admin" not in raw()
    assert Stream.objects.get().address.url() == URL_WITH_SECRET


def test_no_other_column_holds_them() -> None:
    make_capture(f"{URL_WITH_SECRET}?token=t0ken-v4lue")
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - a table's own name
            found = str(cursor.fetchall())
            assert SECRET not in found
            assert "t0ken-v4lue" not in found
    assert Stream.objects.get().url == f"{URL}?token=***"


def test_one_text_is_encrypted_differently_each_time() -> None:
    make_capture(URL_WITH_SECRET)
    first = raw()
    Stream.objects.get().save()
    assert raw() != first
    assert Stream.objects.get().address.password == SECRET


def test_no_credentials_are_no_ciphertext() -> None:
    make_capture(URL)
    assert Stream.objects.get().credentials == ""
    assert raw() == ""


def test_an_old_key_still_opens_and_a_new_one_encrypts(settings: Settings) -> None:
    old, new = new_key(), new_key()
    settings.CREDENTIALS_KEYS = [old]
    make_capture(URL_WITH_SECRET)
    settings.CREDENTIALS_KEYS = [new, old]
    stream = Stream.objects.get()
    assert stream.address.password == SECRET
    stream.save()
    settings.CREDENTIALS_KEYS = [new]
    assert Stream.objects.get().address.password == SECRET
    settings.CREDENTIALS_KEYS = [old]
    assert Stream.objects.get().credentials == ""


def test_a_lost_key_costs_the_password_and_not_the_stream(settings: Settings) -> None:
    make_capture(URL_WITH_SECRET)
    settings.CREDENTIALS_KEYS = [new_key()]
    stream = Stream.objects.get()
    assert (stream.credentials, stream.url, stream.address.url()) == ("", URL, URL)


def test_a_key_that_comes_back_opens_what_it_opened(settings: Settings) -> None:
    """Whatever was saved meanwhile: a missing key is a mistake of an hour, a lost password one for good."""
    right = settings.CREDENTIALS_KEYS
    make_capture(URL_WITH_SECRET)
    settings.CREDENTIALS_KEYS = [new_key()]
    stream = Stream.objects.get()
    stream.interval_s = 2.0
    stream.save()
    settings.CREDENTIALS_KEYS = right
    assert Stream.objects.get().address.password == SECRET
