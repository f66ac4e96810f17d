"""Damage as an attacker would try it, by chance and the same for each seed: to packets and answers. Pure."""

import random
from collections.abc import Callable, Iterable, Iterator

# What parsers look for, where they do not expect it: start codes, parameter sets, frame headers, edges of numbers.
_MEANT = (
    b"\0\0\1",
    b"\0\0\0\1\x67",
    b"\0\0\1\x68",
    b"\0\0\1\x42\1",
    b"\0\0\1\xb3",
    b"\0\0\1\xb6",
    b"\xff\xd8\xff\xc0",
    b"\xff\xda",
    b"$\0\xff\xff",
    b"$\1\0\0",
    b"RTSP/1.0 200 OK\r\n\r\n",
    b"TEARDOWN * RTSP/1.0\r\n\r\n",
    b"\r\n\r\n",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"99999999999999999999",
    b"-1",
    b"%n%s",
)
_HEAD_BYTES = 24  # framing, RTP's header, and the first of its payload: where most is decided
# Of packets: some connections live for long with little damage, others have hardly one in order.
RATES = (0.002, 0.02, 0.1, 0.5)


class Mutator:
    def __init__(self, seed: str) -> None:
        self._chance = random.Random(seed)
        self.rate = self._chance.choice(RATES)
        self._before = b""

    def spoil(self, data: bytes) -> bytes:
        """One mutation or some, whatever they are."""
        for _ in range(self._chance.choice((1, 1, 1, 2, 5))):
            data = self._chance.choice(self._WAYS)(self, data)
        return data

    def maybe(self, data: bytes, rate: float | None = None) -> bytes:
        return self.spoil(data) if self._chance.random() < (self.rate if rate is None else rate) else data

    def spoil_all(self, units: Iterable[bytes]) -> Iterator[bytes]:
        """The same rate for each; what was spoilt may stand for what follows."""
        for unit in units:
            spoilt = self.maybe(unit)
            self._before = unit
            if spoilt:
                yield spoilt

    def _place(self, data: bytes) -> int:
        """In the head as often as anywhere."""
        most = min(len(data), _HEAD_BYTES) if self._chance.random() < 0.5 else len(data)
        return self._chance.randrange(max(1, most))

    def _flip(self, data: bytes) -> bytes:
        out = bytearray(data)
        for _ in range(self._chance.choice((1, 1, 2, 8)) if out else 0):
            out[self._place(data)] ^= 1 << self._chance.randrange(8)
        return bytes(out)

    def _cut(self, data: bytes) -> bytes:
        return data[: self._place(data)]

    def _cut_out(self, data: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + data[at + self._chance.randrange(1, 64) :]

    def _repeat(self, data: bytes) -> bytes:
        return data * self._chance.choice((2, 3, 20))

    def _swap(self, data: bytes) -> bytes:
        """With the one before, which comes a second time."""
        return data + self._before

    def _insert(self, data: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + self._chance.randbytes(self._chance.choice((1, 4, 100, 5000))) + data[at:]

    def _mean(self, data: bytes) -> bytes:
        at = self._place(data)
        meant = self._chance.choice(_MEANT)
        return data[:at] + meant + data[at + (len(meant) if self._chance.random() < 0.5 else 0) :]

    def _fill(self, data: bytes) -> bytes:
        at, size = self._place(data), self._chance.randrange(1, 200)
        return (
            data[:at] + bytes([self._chance.choice((0, 255, 0x41))]) * min(size, len(data) - at) + data[at + size :]
        )

    def _number(self, data: bytes) -> bytes:
        """Another number in two or four bytes, as lengths and timestamps are."""
        at, size = self._place(data), self._chance.choice((2, 4))
        return data[:at] + self._chance.randbytes(size) + data[at + size :]

    def _frame(self, data: bytes) -> bytes:
        """An interleaved packet of another length than it says."""
        if data[:1] != b"$":
            return self._number(data)
        lengths = (0, 1, 11, 12, 13, max(0, len(data) - 5) & 0xFFFF, 0xFFFF)
        return data[:2] + self._chance.choice(lengths).to_bytes(2) + data[4:]

    def _drop(self, data: bytes) -> bytes:
        return b""

    _WAYS: tuple[Callable[["Mutator", bytes], bytes], ...] = (
        _flip,
        _flip,
        _flip,
        _cut,
        _cut_out,
        _repeat,
        _swap,
        _insert,
        _mean,
        _mean,
        _fill,
        _number,
        _frame,
        _drop,
    )
