"""A camera's address as a person gives it to a command: as an argument, by standard input, the password apart.

Whoever may list a machine's processes sees their arguments. `conceal` takes credentials out of there.
"""

import getpass
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .engine import masking
from .engine.address import MASK, Address, Networks, check_literal, parse
from .engine.errors import CaptureError, InvalidURL

FROM_STDIN = "-"
PASSWORD_VARIABLE = "CAMERA_PASSWORD"  # noqa: S105  # its name
# proc(5): "arg_start" and "arg_end" are fields 48 and 49 of stat; the state, field 3, is the first after the name.
_ARGUMENTS = slice(48 - 3, 50 - 3)
_USER_OPTION = "--username"
_RTSP = re.compile(r"\s*rtsps?://", re.IGNORECASE)


class BadAddress(Exception):
    """One sentence, without the address."""

    def __init__(self, error: CaptureError) -> None:
        super().__init__(str(error))
        self.code = error.code


def read(
    text: str, *, username: str | None = None, is_password_on_stdin: bool = False, networks: Networks = ()
) -> Address:
    """The address, checked as /start checks it. `-` is the first line of standard input, the password the next one.

    `username` is for an address without one. For a user without a password CAMERA_PASSWORD is taken, if that is set.
    Raises BadAddress.
    """
    try:
        return _read(text, username, is_password_on_stdin, networks)
    except CaptureError as error:
        raise BadAddress(error) from None


def read_password(is_on_stdin: bool) -> str | None:
    """A password apart: a line of standard input, CAMERA_PASSWORD, or None. Raises BadAddress."""
    try:
        return _line("Password: ") if is_on_stdin else os.environ.get(PASSWORD_VARIABLE) or None
    except CaptureError as error:
        raise BadAddress(error) from None


def _read(text: str, username: str | None, is_password_on_stdin: bool, networks: Networks) -> Address:
    address = _named(parse(_line("Address: ") if text == FROM_STDIN else text), username)
    masking.learn(address.secret)
    check_literal(address, networks)
    if is_password_on_stdin:
        if address.password is not None or address.username is None:
            raise InvalidURL("A password apart needs an address with a user and no password: rtsp://user@host/path.")
        return address.with_credentials(address.username, _line("Password: "))
    given = os.environ.get(PASSWORD_VARIABLE)
    if given and address.username is not None and address.password is None:
        return address.with_credentials(address.username, given)
    return address


def _named(address: Address, username: str | None) -> Address:
    if username is None:
        return address
    if address.username is not None:
        raise InvalidURL("The user name is in the address and apart: give it once.")
    return address.with_credentials(username, None)


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
    """Write over credentials in what the system shows as this process's arguments (Linux)."""
    for before, argument in zip(("", *arguments), arguments, strict=False):
        public = MASK if _is_user_option(before) else shown(argument)
        option, equals, _ = argument.partition("=")
        if equals and _is_user_option(option):
            public = f"{option}={MASK}"
        if public != argument:
            with suppress(OSError, ValueError):
                _write_over(os.fsencode(argument), os.fsencode(public))


def _is_user_option(text: str) -> bool:
    """Or an abbreviation, which argparse takes, too."""
    return text.startswith("--u") and _USER_OPTION.startswith(text)


def _write_over(secret: bytes, public: bytes) -> None:
    """Through the process's own memory as a file: a wrong place is an error there, not a crash."""
    stat = Path("/proc/self/stat").read_text(errors="replace")
    start, end = map(int, stat.rpartition(")")[2].split()[_ARGUMENTS])
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        place = memory.read(end - start).find(b"\0" + secret + b"\0")
        if place >= 0:
            memory.seek(start + place + 1)
            memory.write(public[: len(secret)].ljust(len(secret), b"\0"))


def _line(prompt: str) -> str:
    """One line of standard input; from a person at a terminal, unseen."""
    line = getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise InvalidURL(f"Standard input has no line for this: {prompt.lower().rstrip(': ')}.")
    return line
