"""Rotation of CREDENTIALS_KEYS: each password is brought to the newest key, whatever happens meanwhile."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from pytest_django import Settings

from streams import fields, queries, services
from streams.fields import Sealed
from streams.models import Stream
from tests.e2e.prepared import MANAGE, ROOT
from tests.streams.builders import SECRET, URL, make_capture

PASSWORDS = ["plain", "p@ss/w#rd:%é ?!", "x" * 100, '"\\', "%25%32"]


def new_key() -> str:
    return Fernet.generate_key().decode()


def make_streams(passwords: list[str] = PASSWORDS) -> None:
    for number, password in enumerate(passwords):
        stream = make_capture(f"rtsp://camera-{number}.example/demo").stream
        stream.credentials = stream.address.with_credentials("admin", password).secret
        stream.save()


def reencrypt() -> str:
    said = io.StringIO()
    call_command("reencrypt", stdout=said)
    return said.getvalue()


def passwords() -> list[str | None]:
    return [stream.address.password for stream in Stream.objects.order_by("pk")]


def tokens() -> list[str]:
    return [token.token for _, token in queries.sealed_credentials(after=0, limit=1000)]


@pytest.mark.django_db
def test_all_are_brought_to_the_newest_key_and_a_second_time_changes_nothing(settings: Settings) -> None:
    old, new = new_key(), new_key()
    settings.CREDENTIALS_KEYS = [old]
    make_streams()
    make_capture(URL)  # has none
    settings.CREDENTIALS_KEYS = [new, old]
    assert reencrypt() == "Credentials of 5 streams: 5 encrypted anew, 0 had the newest key already.\n"
    written = tokens()
    assert reencrypt() == "Credentials of 5 streams: 0 encrypted anew, 5 had the newest key already.\n"
    assert tokens() == written
    settings.CREDENTIALS_KEYS = [new]
    assert passwords() == [*PASSWORDS, None]


@pytest.mark.django_db
def test_what_no_key_opens_stays_and_is_told(settings: Settings) -> None:
    lost, old, new = new_key(), new_key(), new_key()
    settings.CREDENTIALS_KEYS = [lost]
    make_streams(["first"])
    settings.CREDENTIALS_KEYS = [old]
    stream = make_capture(URL).stream
    services.stop(stream)
    services.finish(stream.captures.get().pk)
    services.change_stream(stream, services.Change(username="admin", password=SECRET))
    settings.CREDENTIALS_KEYS = [new, old]
    with pytest.raises(CommandError, match="1 can be opened by none of CREDENTIALS_KEYS") as failed:
        reencrypt()
    assert failed.value.returncode == 1
    settings.CREDENTIALS_KEYS = [new, lost]
    assert passwords() == ["first", SECRET]


@pytest.mark.django_db
def test_a_password_that_changes_meanwhile_is_not_lost(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody, on a host that has the old key alone, writes a row between its reading and its writing."""
    old, new = new_key(), new_key()
    settings.CREDENTIALS_KEYS = [old]
    make_streams(["first", "second"])
    settings.CREDENTIALS_KEYS = [new, old]
    rotated = fields.with_newest_key
    calls: list[Sealed] = []

    def slow(token: Sealed) -> Sealed | None:
        calls.append(token)
        fresh = rotated(token)
        if len(calls) == 1:
            settings.CREDENTIALS_KEYS = [old]
            stream = Stream.objects.earliest("pk")
            stream.credentials = stream.address.with_credentials("admin", "changed").secret
            stream.save()
            settings.CREDENTIALS_KEYS = [new, old]
        return fresh

    monkeypatch.setattr(services, "with_newest_key", slow)
    assert reencrypt().startswith("Credentials of 2 streams: 2 encrypted anew")
    settings.CREDENTIALS_KEYS = [new]
    assert passwords() == ["changed", "second"]


@pytest.mark.django_db
def test_it_goes_through_them_in_batches(settings: Settings) -> None:
    old, new = new_key(), new_key()
    settings.CREDENTIALS_KEYS = [old]
    make_streams([f"password-{n}" for n in range(5)])
    settings.CREDENTIALS_KEYS = [new, old]
    assert [batch.done for batch in services.reencrypt(batch=2)] == [2, 2, 1]


def manage(folder: Path, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = {**kept, "DATA_DIR": str(folder), "MEDIA_ROOT": str(folder / "media"), **variables}
    return subprocess.run(
        (sys.executable, MANAGE, *arguments), cwd=ROOT, env=environment, input=f"{SECRET}\n", text=True,
        capture_output=True, timeout=120,
    )  # fmt: skip


def test_keys_are_rotated_as_the_operations_say(tmp_path: Path) -> None:
    """With the key that the first start made, then with keys in a file; old one out, and the password still opens."""
    prepare = manage(tmp_path, "prepare")
    assert prepare.returncode == 0, prepare.stderr
    begun = manage(tmp_path, "streams", "start", URL, "--username", "admin", "--password-stdin")
    assert begun.returncode == 0, begun.stderr
    old, new = (tmp_path / "credentials_key").read_text(), new_key()
    keys = tmp_path / "keys"
    keys.write_text(f"{new},{old}")
    done = manage(tmp_path, "reencrypt", CREDENTIALS_KEYS_FILE=str(keys))
    assert (done.returncode, "1 encrypted anew" in done.stdout) == (0, True), done.stderr
    keys.write_text(new)
    again = manage(tmp_path, "reencrypt", CREDENTIALS_KEYS_FILE=str(keys))
    assert (again.returncode, "1 had the newest key" in again.stdout) == (0, True), again.stderr
    sealed = manage(tmp_path, "reencrypt")
    assert (sealed.returncode, "opened by none" in sealed.stderr) == (1, True)
    assert SECRET not in f"{done}{again}{sealed}"
