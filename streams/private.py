"""Paths that no recorder may read."""

import os
from pathlib import Path

from django.conf import settings


def private_paths() -> tuple[str, ...]:
    """The database and keys, the pictures, and the file of each secret that a variable X_FILE names."""
    named = {name: path for name, path in os.environ.items() if path and name.endswith("_FILE")}
    named.pop("SSL_CERT_FILE", None)
    # The settings of the command `capture` (rtspsite/bare.py) know no folders.
    folders = [str(getattr(settings, name, "") or os.environ.get(name, "")) for name in ("DATA_DIR", "MEDIA_ROOT")]
    return tuple(str(Path(path).absolute()) for path in (*filter(None, folders), *named.values()))
