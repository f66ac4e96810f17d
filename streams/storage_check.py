"""Whether the storage of pictures answers, and what its clock says: one small file is written, read and deleted."""

import contextlib
import errno
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import Storage

FOLDER = "frames"
PROBE = re.compile(r"probe-[0-9a-f]{16}")


def probe(storage: Storage) -> datetime:
    """When the storage says that the file was written. Raises OSError if it cannot be written, read or deleted.

    It lies beside the pictures' folders: a folder of one capture that nobody may enter is no storage that is away.
    """
    name, words = f"{FOLDER}/probe-{secrets.token_hex(8)}", secrets.token_bytes(32)
    ask_again: Any = getattr(storage, "ask_again", None)
    if ask_again:
        ask_again()
    with os_errors():
        name = storage.save(name, ContentFile(words))
        try:
            with storage.open(name) as file:
                if file.read() != words:
                    raise OSError(errno.EIO, "the storage returns other bytes than were written")
            written_at = storage.get_modified_time(name)
        finally:
            storage.delete(name)
    return written_at.astimezone(UTC)


@contextlib.contextmanager
def os_errors() -> Iterator[None]:
    """Turn the errors of any storage into OSError with a reason."""
    try:
        yield
    except FileExistsError as error:
        if error.errno is not None:
            raise
        raise NotADirectoryError(errno.ENOTDIR, "a file is in the place of a folder") from error  # Django's own
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__} of the storage") from error
