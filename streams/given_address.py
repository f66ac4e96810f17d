"""A camera's address as a person gives it to a command: as an argument, by standard input, the password apart.

Whoever may list a machine's processes sees their arguments. `conceal` takes credentials out of there.
"""

import getpass
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from .engine.address import MASK, Address, check_literal, parse
from .engine.errors import CaptureError, InvalidURL

FROM_STDIN = "-"
PASSWORD_VARIABLE = "CAMERA_PASSWORD"  # noqa: S105  # its name
# proc(5): "arg_start" and "arg_end" are fields 48 and 49 of stat; the state, field 3, is the first after the name.
_ARGUMENTS = slice(48 - 3, 50 - 3)
_RTSP = re.compile(r"\s*rtsps?://", re.IGNORECASE)


class BadAddress(Exception):
    """One sentence, without the address."""

    def __init__(self, error: CaptureError) -> None:
        super().__init__(str(error))
        self.code = error.code


def read(text: str, *, is_password_on_stdin: bool = False) -> Address:
    """The address, checked as /start checks it. `-` is the first line of standard input, the password the next one.

    Without a password in the address CAMERA_PASSWORD is taken, if that is set. Raises BadAddress.
    """
    try:
        return _read(text, is_password_on_stdin)
    except CaptureError as error:
        raise BadAddress(error) from None


def _read(text: str, is_password_on_stdin: bool) -> Address:
    address = parse(_line("Address: ") if text == FROM_STDIN else text)
    check_literal(address)
    if is_password_on_stdin:
        if address.password is not None or address.username is None:
            raise InvalidURL("A password apart needs an address with a user and no password: rtsp://user@host/path.")
        return _with(address, _line("Password: "))
    given = os.environ.get(PASSWORD_VARIABLE)
    if given and address.username is not None and address.password is None:
        return _with(address, given)
    return address


def shown(text: str) -> str:
    """The argument as others may see it: without credentials, and nothing of an address that cannot be read."""
    begin = _RTSP.match(text)
    if begin is None:
        return text
    try:
        address = parse(text)
        return address.public if address.secret else text
    except CaptureError:
        return f"{begin[0]}{MASK}"


def conceal(arguments: Sequence[str]) -> None:
    """Write over addresses that hold credentials in what the system shows as this process's arguments (Linux)."""
    for argument in arguments:
        if shown(argument) != argument:
            with suppress(OSError, ValueError):
                _write_over(os.fsencode(argument), os.fsencode(shown(argument)))


def _write_over(secret: bytes, public: bytes) -> None:
    """Through the process's own memory as a file: a wrong place is an error there, not a crash."""
    stat = Path("/proc/self/stat").read_text(errors="replace")
    start, end = map(int, stat.rpartition(")")[2].split()[_ARGUMENTS])
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        place = memory.read(end - start).find(secret)
        if place >= 0:
            memory.seek(start + place)
            memory.write(public[: len(secret)].ljust(len(secret), b"\0"))


def _with(address: Address, password: str) -> Address:
    return parse(replace(address, password=password).url())


def _line(prompt: str) -> str:
    """One line of standard input; from a person at a terminal, unseen."""
    line = getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise InvalidURL(f"Standard input has no line for this: {prompt.lower().rstrip(': ')}.")
    return line
