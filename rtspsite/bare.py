"""Settings of a command that needs no database, no key and no folder: manage.py takes them for `capture`.

settings.py makes keys in DATA_DIR and refuses wrong values, of which one alone matters there.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from django.core.exceptions import ImproperlyConfigured

from streams.engine.address import parse_networks, parse_ports

from . import logs

T = TypeVar("T")


def _read(name: str, parse: Callable[[str], T], default: str) -> T:
    """As settings.py reads it; environs alone would take longer to load than all the rest."""
    try:
        file = os.environ.get(f"{name}_FILE")
        return parse(Path(file).read_text() if file else os.environ.get(name) or default)
    except (OSError, ValueError) as error:
        raise ImproperlyConfigured(f"{name}: {error}") from None


def _megabytes(text: str) -> int:
    count = int(text)
    if count < 64:
        raise ValueError("64 is the least.")
    return count


logs.guard()
CAPTURE_ALLOWED_NETWORKS = _read("CAPTURE_ALLOWED_NETWORKS", parse_networks, "")
CAPTURE_REDIRECT_PORTS = _read("CAPTURE_REDIRECT_PORTS", parse_ports, "")
CAPTURE_MEMORY_MB = _read("CAPTURE_MEMORY_MB", _megabytes, "1024")
INSTALLED_APPS = ["streams"]
USE_TZ = True
TIME_ZONE = "UTC"
