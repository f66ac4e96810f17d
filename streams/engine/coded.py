"""A coded picture, and how packets become one whatever the codec: where it ends, what is missing. Pure."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

PICTURE_BYTES_MAX = 16 << 20  # an I picture of 4K at the highest quality in use stays below 4 MB
_BUFFER_BYTES = 1 << 15  # at first: most P pictures of a feed of 4 Mbit/s
_KEPT_BYTES = 1 << 22  # a buffer that grew beyond is given back


@dataclass(frozen=True, slots=True)
class CodedPicture:
    """What the decoder takes at once.

    `data`: Annex B with start codes (H.264, H.265), a VOP with its headers (MPEG-4), a JPEG file.
    `timestamp`: that of RTP in ticks of the track's clock, unwrapped: it grows beyond 2**32; a jump back of less
    than 2**31 stays one (B-frames).
    `is_key`: decoding may begin here; the data begins with the parameter sets.
    `is_reference`: False only if no other picture can copy from this one.
    `is_whole`: none of its packets is known to be missing, and it begins with its first slice.
    `follows_loss`: packets were lost since the previous picture, maybe whole pictures.
    `is_size_guessed`: with JPEG, only eight bits tell the width and the height in blocks.
    `refresh`: with H.264, after how many frames a picture that is refreshed bit by bit is clean; else None.
    """

    data: bytes
    timestamp: int
    is_key: bool
    is_reference: bool
    is_whole: bool
    follows_loss: bool
    refresh: int | None = None
    is_size_guessed: bool = False


class Assembler(ABC):
    """Payloads, in order, to pictures. What is common to all codecs is here.

    Only the next packet proves that a picture has ended: some cameras set the marker bit on each NAL unit,
    others never. When the next packet is lost, the marker decides, once it was seen to be right.
    """

    __slots__ = (
        "_buffer",
        "_follows_loss",
        "_has_picture",
        "_is_damaged",
        "_is_ended",
        "_is_gap",
        "_is_loss",
        "_is_marked",
        "_is_settled",
        "_is_unmarked_within",
        "_markers_lie",
        "_markers_seen",
        "_ready",
        "_refused",
        "_repeats",
        "_shares_time",
        "_size",
        "_started",
        "_timestamp",
        "complaint",
        "has_key",
    )

    def __init__(self) -> None:
        # The picture at hand, and its bytes. Kept from picture to picture: to let a picture of 100 packets of
        # 1400 bytes grow anew each time, and give its pages back, took 1.2 us a packet, and this 0.9.
        self._buffer = bytearray(_BUFFER_BYTES)
        self._size = 0
        self._has_picture = False  # it holds a slice
        self._is_damaged = False  # something of it is missing for certain
        self._is_gap = False  # packets were lost after its last one: of it, or of others
        self._is_ended = False  # but it had ended before, says its marker
        self._is_marked = False  # its last packet had the marker bit
        self._is_unmarked_within = False  # and a part that ended before had not: so the marker tells something
        self._follows_loss = False
        self._is_loss = False  # for the picture to come
        self._markers_seen = False
        self._markers_lie = False
        self._repeats = False  # pictures share their timestamp with the one before: then it proves nothing
        self._shares_time = False  # parts of one picture were seen that had the same timestamp
        self._timestamp = 0  # of the packet before
        self._started = 0  # of the picture's first slice
        self._refused: int | None = None  # what still comes with this timestamp belongs to a picture already gone
        self._is_settled = False  # gone because it was given, not because it was too large
        self._ready: list[CodedPicture] = []
        self.complaint = ""
        """A sentence about what cannot be read of the stream."""
        self.has_key = False
        """Whether a whole picture was given that decoding can begin with."""

    @abstractmethod
    def take(self, packet: memoryview, start: int, timestamp: int, is_marked: bool) -> Sequence[CodedPicture]:
        """The next packet, whose payload begins at `start`; what is kept of it is copied."""

    @abstractmethod
    def _finished(self, is_whole: bool) -> CodedPicture | None:
        """The picture that has ended; None if nothing can be made of it."""

    def _drop_fragment(self) -> None:
        """Packets are missing: what was to be continued by the next one will not be."""
        return

    def extension(self, profile: int, data: memoryview) -> None:
        """The header extension of the packet whose payload comes next (RFC 3550 section 5.3.1)."""
        return

    def lose(self) -> None:
        """Packets are missing before the next one."""
        if not self._has_picture:
            self._is_loss = True
        elif not self._is_gap:
            self._is_gap = True
            self._is_ended = self._is_marked and self._markers_seen and not self._markers_lie
        self._drop_fragment()

    def settle(self) -> Sequence[CodedPicture]:
        """Nothing has come for a while: the picture that waits, if its last packet had the marker bit."""
        if not self._has_picture or not self._is_marked or self._markers_lie or self._is_gap:
            return ()
        self._refused, self._is_settled = self._started, True
        self._close()
        return self._given()

    def _given(self) -> Sequence[CodedPicture]:
        if not self._ready:
            return ()
        ready, self._ready = self._ready, []
        return ready

    def _turn(self, timestamp: int) -> None:
        """Another timestamp: the picture before has ended."""
        if self._has_picture:
            is_clean = not self._is_gap and not self._is_damaged
            self._markers_seen |= is_clean and self._is_marked and self._is_unmarked_within
            self._close()
        self._timestamp = timestamp
        self._refused = None

    def _goes_on(self) -> bool:
        """Whether a part with another timestamp, which cannot begin a picture, belongs to the one at hand.

        Some senders give each slice a timestamp of its own, and a marker (sipsorcery #321). Where parts share their
        timestamps, a part behind a marker is the rest of a picture whose begin a relay did not get.
        """
        return self._has_picture and not self._is_gap and not (self._is_marked and self._shares_time)

    def _open(self, *, is_first: bool) -> bool:
        """Begin a picture. False if it is the rest of one that is gone, which is then lost."""
        if not is_first and self._refused == self._timestamp:
            self._miss_begin()
            return False
        self._refused = None
        self._has_picture = True
        self._size = 0
        self._started = self._timestamp
        self._follows_loss, self._is_loss = self._is_loss, False
        self._is_damaged = not is_first
        self._is_gap = self._is_ended = self._is_marked = self._is_unmarked_within = False
        return True

    def _miss_begin(self) -> None:
        """The rest of a picture that is gone: its begin was lost, or it settled too early."""
        self._is_loss = True
        self._markers_lie |= self._is_settled and self._refused == self._timestamp

    def _continue(self) -> None:
        """The packet at hand belongs to the picture as well."""
        if self._is_gap:
            self._is_gap = False
            self._is_damaged = True
            self._is_loss |= self._repeats
        self._markers_lie |= self._is_marked
        self._is_unmarked_within |= not self._is_marked

    def _take_part(
        self, data: bytes | memoryview, timestamp: int, *, is_start: bool, is_marked: bool
    ) -> Sequence[CodedPicture]:
        """One packet's part of a picture. `is_start`: a picture begins with it. Without data only its time counts."""
        if timestamp == self._timestamp:
            self._shares_time |= self._has_picture and not is_start
        elif len(data) and not is_start and self._goes_on():
            self._timestamp = timestamp
        else:
            self._turn(timestamp)
        if not len(data):
            return self._given()
        if is_start:
            if self._has_picture:
                self._repeats = True
                self._close()
            self._open(is_first=True)
            self._append(data)
        elif self._has_picture:
            self._continue()
            self._append(data)
        else:
            self._miss_begin()
        if self._has_picture:
            self._is_marked = is_marked
        return self._given()

    def _append(self, data: bytes | memoryview) -> None:
        """To the picture. One that grows beyond all measure is given up."""
        end = self._size + len(data)
        if end > PICTURE_BYTES_MAX:
            self._refuse()
            return
        if end > len(self._buffer):
            self._buffer.extend(bytes(min(max(end, 2 * len(self._buffer)), PICTURE_BYTES_MAX) - len(self._buffer)))
        self._buffer[self._size : end] = data
        self._size = end

    def _data(self) -> bytes:
        """The picture at hand."""
        return bytes(memoryview(self._buffer)[: self._size])

    def _close(self) -> None:
        if not self._has_picture:
            return
        self._has_picture = False
        self._is_loss |= self._is_gap
        is_whole = not self._is_damaged and (not self._is_gap or self._is_ended)
        picture = self._finished(is_whole)
        if picture is None:
            self._is_loss = True
        else:
            self._ready.append(picture)
            self.has_key |= picture.is_key and picture.is_whole
        self._empty()

    def _empty(self) -> None:
        self._size = 0
        if len(self._buffer) > _KEPT_BYTES:
            self._buffer = bytearray(_BUFFER_BYTES)

    def _refuse(self) -> None:
        """Give up the picture at hand and what still comes of it."""
        self._empty()
        self._has_picture = False
        self._is_loss = True
        self._refused, self._is_settled = self._timestamp, False
        self._drop_fragment()
