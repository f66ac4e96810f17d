"""Keys that nobody has to configure: made once, kept beside the database, readable by the service alone."""

import os
import secrets
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet


def secret_key(folder: Path) -> str:
    """Django's SECRET_KEY, the same for every process that shares the folder."""
    return _made_once(folder / "secret_key", secrets.token_urlsafe(64))


def credentials_key(folder: Path) -> str:
    """The Fernet key that camera credentials are encrypted with. Whoever loses it types the passwords again."""
    return _made_once(folder / "credentials_key", Fernet.generate_key().decode())


def _made_once(path: Path, fresh: str) -> str:
    """What the file holds; `fresh`, if there was none. Two processes that start together agree on one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
        try:
            os.write(handle, fresh.encode())
            os.fsync(handle)
            os.link(name, path)  # atomic, and fails where another process was first
        except FileExistsError:
            pass
        finally:
            os.close(handle)
            os.unlink(name)
    return path.read_text().strip()
