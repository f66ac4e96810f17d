"""Files that a command writes where a person wants them: whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


class CannotWrite(Exception):
    """The file cannot be written; the text is one sentence with the reason."""


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


class _Unfinished:
    """A file that is being written; its own errors differ from those of the code that fills it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file

    def write(self, data: bytes) -> None:
        """Raises CannotWrite."""
        try:
            self._file.write(data)
        except OSError as error:
            raise _cannot(self._path, error) from None


@contextmanager
def writing(path: Path) -> Iterator[_Unfinished]:
    """A file that is filled part by part, for its owner alone (0600). Raises CannotWrite.

    What was there before stays until all of it is on the disk. On most file systems it has no name until then, so
    that not even kill -9 leaves a part of it behind.
    """
    target = _target(path)
    unfinished = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        descriptor = _open_nameless(target.parent) or _open_named(unfinished)
    except OSError as error:
        raise _cannot(path, error) from None
    try:
        with open(descriptor, "wb") as file:
            yield _Unfinished(path, file)
            file.flush()
            os.fsync(file.fileno())
            if not unfinished.exists():
                _name(file.fileno(), unfinished)
        os.replace(unfinished, target)
        _settle_folder(target.parent)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink()
        if isinstance(error, OSError):
            raise _cannot(path, error) from None
        raise


def _open_nameless(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
    except OSError:  # not every file system can: NFS, some of containers
        return None


def _open_named(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _name(descriptor: int, path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:  # without a folder's descriptor Python calls link(), which does not follow /proc's links
        os.link(f"/proc/self/fd/{descriptor}", path.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _settle_folder(folder: Path) -> None:
    """A power cut does not take the new name away."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot(path: Path, error: OSError) -> CannotWrite:
    return CannotWrite(f"{path} cannot be written: {error.strerror}.")
