"""The first run, with nothing configured: keys are made for the service alone; what is wrong with them is told."""

import os
import stat
from pathlib import Path

from cryptography.fernet import Fernet
from django.core.checks import run_checks
from pytest_django import Settings

from streams import checks
from tests.streams.processes import manage, python, settings_with

SECRET, CREDENTIALS = "secret_key", "credentials_key"
LONG = "k" * 86
FERNET = Fernet.generate_key().decode()
# What Django says where no proxy speaks HTTPS, and we where anybody is let in: all of it is so.
PLAIN = {"security.W004", "security.W008", "security.W012", "security.W016", "streams.W001"}


def data_folder(folder: Path, *, secret: bytes = LONG.encode(), credentials: bytes = FERNET.encode()) -> Path:
    folder.mkdir()
    for name, key in {SECRET: secret, CREDENTIALS: credentials}.items():
        (folder / name).write_bytes(key)
        (folder / name).chmod(0o600)
    return folder


def test_a_key_that_is_not_whole_is_told_and_never_replaced(tmp_path: Path) -> None:
    """A new one in its place would cost the cameras' passwords without a word."""
    wrong = {
        "empty": (data_folder(tmp_path / "1", secret=b""), SECRET),
        "cut off": (data_folder(tmp_path / "2", secret=LONG.encode()[:30]), SECRET),
        "spaces": (data_folder(tmp_path / "3", credentials=b" \n"), CREDENTIALS),
        "no key": (data_folder(tmp_path / "4", credentials=FERNET.encode()[:20]), CREDENTIALS),
        "no text": (data_folder(tmp_path / "5", credentials=b"\xff\xfe\xff"), CREDENTIALS),
    }
    before = {folder: (folder / name).read_bytes() for folder, name in wrong.values()}
    found = settings_with(tmp_path, "1", *({"DATA_DIR": str(folder)} for folder, _ in wrong.values()))
    for (is_taken, said), (folder, name) in zip(found, wrong.values(), strict=True):
        assert not is_taken
        assert str(folder / name) in said
        assert LONG[:30] not in said
        assert (folder / name).read_bytes() == before[folder]


def test_a_folder_that_is_none_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / SECRET).symlink_to(tmp_path / "nowhere")
    cases = [{"DATA_DIR": str(tmp_path / "file")}, {"DATA_DIR": str(tmp_path / "lost")}]
    for (is_taken, said), case in zip(settings_with(tmp_path, "1", *cases), cases, strict=True):
        assert not is_taken
        assert case["DATA_DIR"] in said
        assert f"uid {os.getuid()} may write" in said
    assert not (tmp_path / "nowhere").exists()


def test_a_key_may_be_a_link_to_where_secrets_are_mounted(tmp_path: Path) -> None:
    folder = data_folder(tmp_path / "data")
    (folder / SECRET).rename(tmp_path / "mounted")
    (folder / SECRET).symlink_to(tmp_path / "mounted")
    assert settings_with(tmp_path, "s.SECRET_KEY", {}) == [(True, LONG)]


def test_the_folder_that_is_made_is_closed_to_others(tmp_path: Path) -> None:
    """However generous the one who starts it is."""
    done = python("import os; os.umask(0); import rtspsite.settings", tmp_path)
    assert done.returncode == 0, done.stderr
    made = [tmp_path / "data", *(tmp_path / "data").iterdir()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o700, 0o600, 0o600]


def test_an_earlier_secret_key_is_still_read(tmp_path: Path) -> None:
    cases: tuple[dict[str, str], ...] = ({"SECRET_KEY_FALLBACKS": f"{LONG}, {'o' * 50}"}, {})
    what = "[len(key) for key in s.SECRET_KEY_FALLBACKS]"
    assert settings_with(tmp_path, what, *cases) == [(True, "[86, 50]"), (True, "[]")]


# --- what is checked at each start ----------------------------------------------------------------


def ids(settings: Settings, folder: Path) -> list[str]:
    settings.DATA_DIR = folder
    return [str(message.id) for message in checks.check_secrets()]


def test_a_secret_that_others_can_read_is_told(settings: Settings, tmp_path: Path) -> None:
    folder = data_folder(tmp_path / "data")
    assert ids(settings, folder) == []
    for mode in (0o640, 0o604):
        (folder / SECRET).chmod(mode)
        assert ids(settings, folder) == ["streams.W002"]
    folder.chmod(0o700)
    assert ids(settings, folder) == [], "nobody else comes that far"
    folder.chmod(0o755)
    (folder / "db.sqlite3").touch()
    (folder / "db.sqlite3").chmod(0o644)
    assert ids(settings, folder) == ["streams.W002"] * 2


def test_a_secret_key_that_can_be_guessed_is_told(settings: Settings, tmp_path: Path) -> None:
    settings.SECRET_KEY = "changeme"
    assert ids(settings, tmp_path) == ["streams.W003"]
    assert "changeme" not in str(checks.check_secrets())


def test_it_is_checked_by_commands_that_serve_no_page_too(settings: Settings) -> None:
    settings.SECRET_KEY = "changeme"
    assert "streams.W003" in [message.id for message in run_checks(tags=[checks.TAG])]


def test_the_deployment_check_finds_what_is_so_and_nothing_else(tmp_path: Path) -> None:
    """Behind a proxy with HTTPS, and with a token, nothing: scripts/lint.sh holds it to that."""
    done = manage(tmp_path, "check", "--deploy")
    assert done.returncode == 0, done.stderr
    found = {word for word in done.stderr.replace("(", " ").replace(")", " ").split() if ".W" in word}
    assert found == PLAIN
