"""The files in which names and certificate authorities are looked up, and how a recorder notices a replaced one.

A rule of Landlock belongs to the file or folder that was there when the recorder began, not to its path. Many
programs replace such a file by rename: DHCP clients, NetworkManager, systemd-resolved, certbot, editors. In a folder
that is open to the recorder that changes nothing. Anywhere else the new file is closed to a recorder that already
runs. The recorder sees that before its next connection and ends, and another one with new rules takes its place.
"""

import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from .address import Address, is_literal

# nsswitch.conf(5), resolv.conf(5), hosts(5), gai.conf(5), host.conf(5). systemd-resolved and nscd are asked through
# sockets, to which Landlock lets every process connect.
NAME_FILES: tuple[str, ...] = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/host.conf",
)
# path_resolution(7)
_MAX_LINKS = 40
# /run/systemd/resolve holds a dozen entries. A folder with more than this is not there for names alone.
_MAX_ENTRIES = 200
# `/run` and `/var` hold the secrets of others; `/run/systemd/resolve` has four parts.
_MIN_PARTS = 3

Identity = tuple[int, int] | None
"""Device and inode; None if there is no file."""


def authority_files() -> list[str]:
    """The user's own: those of the system lie in /etc and /usr, which are open as a whole."""
    folders = os.environ.get("SSL_CERT_DIR", "").split(os.pathsep)
    return [path for path in (os.environ.get("SSL_CERT_FILE", ""), *folders) if path]


def files_for(address: Address, *, verifies_certificate: bool) -> list[str]:
    """Those that a connection to this address depends on."""
    names = [] if is_literal(address.host) else [*NAME_FILES]
    return names + (authority_files() if address.scheme == "rtsps" and verifies_certificate else [])


def link_folders(path: str) -> list[Path]:
    """The folders into which the links of this path lead, one after the other."""
    found: list[Path] = []
    current = Path(path)
    with suppress(OSError, RuntimeError):
        while current.is_symlink() and len(found) < _MAX_LINKS:
            target = current.parent.resolve() / current.readlink()
            found.append(target.parent.resolve())
            current = found[-1] / target.name
    return found


def is_public(folder: Path, closed: Iterable[Path] = ()) -> bool:
    """Whether a recorder may read the whole folder.

    It holds nothing of `closed`, and nothing that the recorder's user can read and other users cannot.
    """
    if len(folder.parts) < _MIN_PARTS:
        return False
    if any(path.is_relative_to(folder) or folder.is_relative_to(path) for path in closed):
        return False
    try:
        entries = list(itertools.islice(_open_beneath(folder), _MAX_ENTRIES + 1))
    except OSError:  # it is not there, or it changes at this moment
        return False
    return len(entries) <= _MAX_ENTRIES and all(entries)


def _open_beneath(folder: Path) -> Iterator[bool]:
    """Of the folder and each entry whether it is as open, or as closed, to this user as to any other. A link opens
    nothing, and a socket cannot be read."""
    yield _is_open_to_all(folder.stat().st_mode, stat.S_IROTH | stat.S_IXOTH)
    with os.scandir(folder) as entries:
        for entry in entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode) and os.access(entry.path, os.R_OK | os.X_OK):
                yield from _open_beneath(Path(entry.path))
            elif stat.S_ISREG(mode):
                yield _is_open_to_all(mode, stat.S_IROTH) or not os.access(entry.path, os.R_OK)
            else:
                yield True


def _is_open_to_all(mode: int, needed: int) -> bool:
    return mode & needed == needed


class Seen:
    """What each path led to when the rules were made."""

    def __init__(self) -> None:
        self._identities: dict[str, Identity] = {}

    def note(self, path: str, identity: Identity) -> None:
        self._identities[path] = identity

    def replaced(self, paths: Iterable[str]) -> str:
        """The first of these paths that leads to another file now, one that is closed to this process. Empty: none.

        One that was closed from the start is none of them: a new recorder could not read it either.
        """
        changed = (path for path in paths if path in self._identities and identity_of(path) != self._identities[path])
        return next(filter(_is_closed, changed), "")


def identity_of(path: str) -> Identity:
    """Landlock lets every process ask for this. The number of a file that a rule names is not given to another file:
    the rule holds the inode."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_closed(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except PermissionError:
        return True
    except OSError:
        return False
    return False
