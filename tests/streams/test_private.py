"""What no recorder may read, however links of the system lie."""

from pathlib import Path

import pytest
from django.conf import settings

from rtspsite import bare
from streams.private import private_paths


def test_database_pictures_and_files_of_secrets_are_private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN_FILE", "/run/secrets/token")
    monkeypatch.setenv("SECRET_KEY_FILE", "")
    monkeypatch.setenv("SSL_CERT_FILE", "/run/secrets/authorities")
    paths = private_paths()
    assert {str(settings.DATA_DIR), str(settings.MEDIA_ROOT), "/run/secrets/token"} <= {*paths}
    assert not {"/run/secrets/authorities", str(Path.cwd())} & {*paths}


def test_a_command_whose_settings_know_no_folders_keeps_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.private.settings", bare)
    monkeypatch.setenv("DATA_DIR", "/srv/data")
    assert "/srv/data" in private_paths()
