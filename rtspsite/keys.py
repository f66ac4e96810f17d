"""Keys that nobody has to configure: made once, kept beside the database, readable by the service alone."""

import os
import secrets
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

SECRET_KEY, CREDENTIALS_KEY = "secret_key", "credentials_key"  # names of files
RESTORE_LOCK = "-restore.lock"  # after the name of the SQLite file: by it one restore knows of another
_LENGTH = 50  # what Django calls long enough
made_here: set[Path] = set()
"""Files of keys that this process made: nothing was ever encrypted or signed with them."""


def secret_key(folder: Path) -> str:
    """Django's SECRET_KEY, the same for every process that shares the folder."""
    key = _made_once(folder / SECRET_KEY, secrets.token_urlsafe(64))
    if len(key) < _LENGTH:
        raise _not_whole(folder / SECRET_KEY, "everybody signs in anew")
    return key


def credentials_key(folder: Path) -> str:
    """The Fernet key that camera credentials are encrypted with. Whoever loses it types the passwords again."""
    key = _made_once(folder / CREDENTIALS_KEY, Fernet.generate_key().decode())
    try:
        Fernet(key)
    except ValueError:
        raise _not_whole(folder / CREDENTIALS_KEY, "the cameras' passwords have to be given again") from None
    return key


def _made_once(path: Path, fresh: str) -> str:
    """What the file holds; `fresh`, if there was none. Two processes that start together agree on one."""
    try:
        if not path.exists():
            _make(path, fresh)
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it holds no text"
        raise ImproperlyConfigured(
            f"The key in {path} cannot be read or made: {why}. "
            f"DATA_DIR has to be a folder that uid {os.getuid()} may write, and better one that nobody else may read."
        ) from None


def _make(path: Path, fresh: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        os.write(handle, fresh.encode())
        os.fsync(handle)
        os.link(name, path)  # atomic, and fails where another process was first
        made_here.add(path)
    except FileExistsError:
        pass
    finally:
        os.close(handle)
        os.unlink(name)


def are_alone_in(folder: Path) -> bool:
    """True if the folder holds nothing but keys: no service has started there, and no database was made."""
    names = {path.name for path in folder.iterdir() if not path.name.endswith(RESTORE_LOCK)}
    return names <= {SECRET_KEY, CREDENTIALS_KEY}


def holds(path: Path, key: str) -> bool:
    return path.exists() and path.read_text().strip() == key


def replace(path: Path, key: str) -> None:
    """The file holds this key from then on; a crash leaves the old one or the new one. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        os.write(handle, key.encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(name, path)


def _not_whole(path: Path, price: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(
        f"The key in {path} is empty or cut off: restore it from a backup, or remove it, and a new one is made; then "
        f"{price}."
    )
