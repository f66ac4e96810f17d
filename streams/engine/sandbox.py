"""What a recorder may reach: with Linux's Landlock programs, libraries and the system's settings (5.13), and by TCP
its camera's port and name servers (6.7).

The pictures, the database and its keys belong to the same user as the recorder. Whoever takes over the process that
parses a camera's bytes finds them closed, can write nowhere, can look into no other process, and finds no website,
database or broker to talk to. Descriptors that are open already stay so: the log, and the socket to the supervisor.
"""

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from . import lookups

# linux/landlock.h
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# All that is done to files, by the version that knows it: creating, writing, removing; moving; cutting off.
_ACCESS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
_BIND_TCP, _CONNECT_TCP = 1, 2
_WITH_NETWORK = 4
_SCOPES = 0b11  # sockets without a name in the file system, and signals to others: from version 6 on
_WITH_SCOPES = 6
_DNS_PORT = 53  # by TCP where an answer is long

_PACKAGE = Path(__file__).resolve().parents[1]
_SYSTEM = ("/usr", "/lib", "/lib64", "/etc", "/dev")
_seen = lookups.Seen()


def shut_in(*ports: int, closed: Iterable[str] = ()) -> bool:
    """For this thread and all that it starts, for good; whether this system can. Needs PR_SET_NO_NEW_PRIVS.

    `ports` are those that may be connected to by TCP, with any host: of addresses Landlock knows nothing. No folder
    that holds one of the paths `closed`, or lies in one, is opened because a link leads there.
    """
    if not sys.platform.startswith("linux"):
        return False
    version = _call(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return False
    attributes = _attributes(version)
    rules = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    if rules < 0:
        return False
    try:
        for path in readable(closed):
            _allow(rules, path)
        for name in (*lookups.NAME_FILES, *lookups.authority_files()):
            path = Path(name).resolve()
            _seen.note(name, _allow(rules, path) if _may_be_opened(path) else lookups.identity_of(name))
        for port in ports if version >= _WITH_NETWORK else ():
            _call(_ADD_RULE, rules, _NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port), 0)
        return _call(_RESTRICT_SELF, rules, 0) == 0
    finally:
        os.close(rules)


def ports_of(camera_port: int, redirect_ports: tuple[int, ...] = ()) -> tuple[int, ...]:
    """What a recorder connects to by TCP: a camera that redirects to yet another port is not followed."""
    return camera_port, *redirect_ports, _DNS_PORT


def _attributes(version: int) -> bytes:
    """All that is forbidden unless a rule allows it, as far as this version knows it."""
    handled = [_ACCESS[min(version, max(_ACCESS))]]
    if version >= _WITH_NETWORK:
        handled.append(_BIND_TCP | _CONNECT_TCP)
    if version >= _WITH_SCOPES:
        handled.append(_SCOPES)
    return struct.pack(f"={len(handled)}Q", *handled)


def readable(closed: Iterable[str] = ()) -> set[Path]:
    """What is imported late, and what a name or a certificate is looked up in. Not the folder that all this lies in:
    the database is in there by default.

    A file that a name is looked up in is often a link, into /run for example, and is replaced there by rename: so the
    folder is open, too, where it holds nothing to hide. The folder of SSL_CERT_FILE stays closed: people keep keys
    beside certificates.
    """
    files = (*lookups.NAME_FILES, *lookups.authority_files())
    paths = {Path(path).resolve() for path in (*_SYSTEM, *files, *sys.path, sys.prefix, sys.base_prefix)}
    hidden = [_PACKAGE.parent, *(Path(path).resolve() for path in closed)]
    folders = {folder for name in lookups.NAME_FILES for folder in lookups.link_folders(name)}
    paths |= {folder for folder in folders if lookups.is_public(folder, hidden)}
    paths.add(_PACKAGE)
    return set(filter(_may_be_opened, paths))


def replaced(paths: Iterable[str]) -> str:
    """The first of these files that was replaced by one that the rules keep from this process. Empty: none."""
    return _seen.replaced(paths)


def _may_be_opened(path: Path) -> bool:
    return path not in (_PACKAGE.parent, *_PACKAGE.parent.parents)


def _allow(rules: int, path: Path) -> lookups.Identity:
    """What was found there; None: nothing."""
    with suppress(OSError):
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            found = os.fstat(opened)
            rights = _READ_FILE | (_READ_DIR if stat.S_ISDIR(found.st_mode) else 0)
            _call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, opened), 0)
            return found.st_dev, found.st_ino
        finally:
            os.close(opened)
    return None


def _call(number: int, *arguments: bytes | int | None) -> int:
    """-1: it did not work."""
    return int(ctypes.CDLL(None).syscall(ctypes.c_long(number), *arguments))
