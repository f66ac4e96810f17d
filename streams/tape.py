"""A strict subset of tar: plain files alone, one header each, written and read in one pass.

tarfile reads all that tar has ever been: links, devices, sparse files, headers of any length. Nothing of that is in a
backup, so the reader compares each header byte by byte with the one that the writer makes, and refuses any other.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol

BLOCK_BYTES = 512
CHUNK_BYTES = 1 << 20
MAX_BYTES = 8 * 1024**3 - 1  # eleven octal digits, POSIX ustar
_END = bytes(2 * BLOCK_BYTES)


class NotATape(Exception):
    """The file is not a valid backup; the text is one sentence."""


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    size_bytes: int
    moment_s: int
    """Seconds since 1970 UTC; any `tar` shows it."""


class Writer:
    """`sha256` is that of all bytes so far."""

    def __init__(self, file: Sink, moment_s: int) -> None:
        self._file = file
        self._moment_s = moment_s
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def add(self, name: str, data: bytes) -> None:
        self._begin(name, len(data))
        self._put(data)
        self._pad(len(data))

    def add_file(self, name: str, file: IO[bytes], size_bytes: int) -> None:
        """Add the rest of the file, which must have `size_bytes`."""
        self._begin(name, size_bytes)
        left = size_bytes
        while left:
            data = file.read(min(left, CHUNK_BYTES))
            if not data:
                raise ValueError(f"{name} became shorter")
            self._put(data)
            left -= len(data)
        self._pad(size_bytes)

    def end(self) -> None:
        self._put(_END)

    def _begin(self, name: str, size_bytes: int) -> None:
        self._put(_header(Member(name, size_bytes, self._moment_s)))

    def _pad(self, size_bytes: int) -> None:
        self._put(bytes(-size_bytes % BLOCK_BYTES))

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size_bytes += len(data)


class Reader:
    """Member after member. `sha256` is that of all bytes before the member that was met last.

    With `is_skipping` members that are not read are skipped by seeking, and there is no `sha256`.
    """

    def __init__(self, file: IO[bytes], *, is_skipping: bool = False) -> None:
        self._file = file
        self._is_skipping = is_skipping
        self._hash = hashlib.sha256()
        self._left = self._padding = 0
        self.sha256 = ""

    def __iter__(self) -> Iterator[Member]:
        """Raises NotATape where the file ends early, goes on after its end, or holds anything but plain files."""
        moment_s: int | None = None
        while True:
            self._finish()
            self.sha256 = self._hash.hexdigest()
            header = self._take(BLOCK_BYTES)
            if not any(header):
                break
            try:
                member = _member(header)
            except NotATape:
                if moment_s is None:
                    raise NotATape("It is not a backup of this service, or its beginning is damaged.") from None
                raise
            if moment_s not in (None, member.moment_s):
                raise NotATape(f"{member.name} has another time than the rest.")
            moment_s = member.moment_s
            self._left, self._padding = member.size_bytes, -member.size_bytes % BLOCK_BYTES
            yield member
        if any(self._take(BLOCK_BYTES)) or self._file.read(1):
            raise NotATape("There is more after its end.")

    def read(self, limit_bytes: int) -> bytes:
        """Return the whole content of the current member."""
        if self._left > limit_bytes:
            raise NotATape(f"It has a part of {self._left} bytes, where {limit_bytes} is the most.")
        data = self._take(self._left)
        self._left = 0
        return data

    def lines(self, limit_bytes: int) -> Iterator[bytes]:
        """Yield the lines of the current member without their ends."""
        rest = b""
        while self._left:
            data = self._take(min(self._left, CHUNK_BYTES))
            self._left -= len(data)
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
            if len(rest) > limit_bytes:
                raise NotATape(f"It has a row of more than {limit_bytes} bytes.")
        if rest:
            raise NotATape("Its last row has no end.")

    def _finish(self) -> None:
        if self._is_skipping:
            self._file.seek(self._left + self._padding, 1)
            self._left = self._padding = 0
            return
        while self._left:
            self._left -= len(self._take(min(self._left, CHUNK_BYTES)))
        if any(self._take(self._padding)):
            raise NotATape("There is something between its parts.")
        self._padding = 0

    def _take(self, size_bytes: int) -> bytes:
        data = self._file.read(size_bytes)
        if len(data) < size_bytes:
            raise NotATape("It ends too early: it was cut off.")
        if not self._is_skipping:
            self._hash.update(data)
        return data


def _header(member: Member) -> bytes:
    info = tarfile.TarInfo(member.name)
    info.size, info.mtime, info.mode = member.size_bytes, member.moment_s, 0o600
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _member(header: bytes) -> Member:
    try:
        info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        member = Member(info.name, info.size, int(info.mtime))
        if member.size_bytes >= 0 and _header(member) == header:
            return member
    except (tarfile.HeaderError, ValueError):
        pass
    raise NotATape("It holds something that no backup holds, or is damaged.")
