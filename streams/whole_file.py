"""Files that a command writes where a person wants them: whole or not at all."""

import os
import secrets
from contextlib import suppress
from pathlib import Path


class CannotWrite(Exception):
    """One sentence that says what and why."""


def check(path: Path) -> None:
    """Whether a file can be written there, told before the work begins. Raises CannotWrite."""
    target = _target(path)
    try:
        _check_target(path, target)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise CannotWrite(f"{path} cannot be written: {error.strerror}.") from None
    _check_folder(target.parent)


def _target(path: Path) -> Path:
    """Where links lead. Raises CannotWrite."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # pathlib's way to tell a loop, until 3.13
        raise CannotWrite(f"{path} cannot be written: its links lead nowhere, as in a loop.") from None


def _check_target(path: Path, target: Path) -> None:
    if target.is_dir():
        raise CannotWrite(f"{path} is a folder.")
    if target.exists() and not target.is_file():  # it would be replaced: /dev/null for everybody
        raise CannotWrite(f"{path} is no regular file.")
    if target.exists() and not os.access(target, os.W_OK):
        raise CannotWrite(f"{path} may not be written.")


def _check_folder(folder: Path) -> None:
    """Raises CannotWrite unless files can be made in it."""
    probe = folder / f".{secrets.token_hex(8)}.part"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        probe.unlink()
    except OSError as error:
        raise CannotWrite(f"Nothing can be written into {folder}: {error.strerror}.") from None


def make_folder(folder: Path) -> None:
    """The folder, if it is not there; files can be made in it. Raises CannotWrite."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"The folder {folder} cannot be made: {error.strerror}.") from None
    _check_folder(folder)


def write(path: Path, data: bytes) -> None:
    """What was there before stays until all of it is on the disk. Raises CannotWrite."""
    target = _target(path)  # a link stays one
    unfinished = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(unfinished, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink()
        if isinstance(error, OSError):
            raise CannotWrite(f"{path} cannot be written: {error.strerror}.") from None
        raise
