"""JPEG over RTP: the scan in parts, the file's headers made up again (RFC 2435). Pure."""

import re
import struct
from collections.abc import Mapping, Sequence

from .coded import Assembler, CodedPicture

_HEADER_BYTES = 8
_RTP_HEADER_BYTES = 12
_BLOCK_PX = 8
_RESTART_TYPES = range(64, 128)
_SAMPLING = {0: 0x21, 1: 0x22}  # of luma, across and down: 4:2:2, 4:2:0 (RFC 2435 section 4.1)
_TABLE_BYTES = 64
_ONVIF = 0xFFD8  # a header extension with the file's own segments (ONVIF streaming specification, section 5.1.3)
_DQT, _DHT, _SOF, _SOS, _DRI = 0xDB, 0xC4, (0xC0, 0xC1), 0xDA, 0xDD
_START, _END = b"\xff\xd8", b"\xff\xd9"
# A width of 2048 is 256 blocks, and the field has eight bits. Cameras of three megapixels have it (2048 x 1536).
_WRAPPED_PX = 256 * _BLOCK_PX
_BLOCKS_MAX = 255
_SIZE = re.compile(r"(\d{1,5})[,x-](\d{1,5})$", re.ASCII)
_CLIP = re.compile(r"(\d{1,5}),(\d{1,5}),(\d{1,5}),(\d{1,5})", re.ASCII)

# ITU-T T.81 tables K.1 and K.2, in zigzag order.
_LUMA = bytes.fromhex(
    "100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c3933383740485c4e404457453738506d51575f626768"
    "673e4d71797064785c656763"
)
_CHROMA = bytes.fromhex("1112121815182f1a1a2f6342384263" + "63" * 49)

# ITU-T T.81 tables K.3 to K.6: codes of each length, then the values.
_DC_VALUES = bytes(range(12))
_LUMA_DC = bytes.fromhex("00010501010101010100000000000000") + _DC_VALUES
_CHROMA_DC = bytes.fromhex("00030101010101010101010000000000") + _DC_VALUES
_LUMA_AC = bytes.fromhex(
    "0002010303020403050504040000017d"
    "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435"
    "363738393a434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798"
    "999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4"
    "f5f6f7f8f9fa"
)
_CHROMA_AC = bytes.fromhex(
    "00020102040403040705040400010277"
    "000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f11718191a262728292a"
    "35363738393a434445464748494a535455565758595a636465666768696a737475767778797a82838485868788898a9293949596"
    "9798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4"
    "f5f6f7f8f9fa"
)


class JPEG(Assembler):
    """Each fragment says its offset in the scan; the first one holds what the file's headers need."""

    __slots__ = (
        "_due",
        "_given_size",
        "_headers",
        "_huffman",
        "_is_size_guessed",
        "_onvif",
        "_overhead_bytes",
        "_tables",
    )

    def __init__(self, fmtp: Mapping[str, str]) -> None:
        """A size above 2040 px: attributes of the SDP, or width and height in its fmtp."""
        super().__init__()
        self._given_size = _size_told(fmtp)
        self._is_size_guessed = True
        self._tables: dict[int, tuple[bytes, ...]] = {}  # by Q, of 128 and above
        self._onvif = b""
        self._huffman = _HUFFMAN
        self._headers: bytes | None = None  # of the picture at hand
        self._due = 0  # the offset of its next part
        self._overhead_bytes = 0  # what the packet before held beside its part

    def extension(self, profile: int, data: memoryview) -> None:
        if profile == _ONVIF:
            self._onvif = bytes(data)

    def take(self, packet: memoryview, start: int, timestamp: int, is_marked: bool) -> Sequence[CodedPicture]:
        payload = packet[start:]
        start = _HEADER_BYTES
        if len(payload) > start and payload[4] in _RESTART_TYPES:
            start += 4
        offset = payload[1] << 16 | payload[2] << 8 | payload[3] if len(payload) > start else 0
        if timestamp != self._timestamp:
            if offset and self._has_picture and not self._is_gap and self._is_next(offset):
                self._timestamp = timestamp
            else:
                self._turn(timestamp)
        if len(payload) <= start:
            return self._given()
        if offset == 0:
            self._begin(payload, start)
        elif self._has_picture:
            self._add(payload[start:], offset, start)
        else:
            self._miss_begin()
        if self._has_picture:
            self._is_marked = is_marked
        return self._given()

    def _begin(self, payload: memoryview, start: int) -> None:
        if self._has_picture:
            self._repeats = True
            self._close()
        self._open(is_first=True)
        onvif, self._onvif = self._onvif, b""
        self._note_segments(onvif)
        kind, quality, width, height = payload[4:8]
        tables: tuple[bytes, ...] | None = None
        if quality < 128:
            tables = computed_tables(quality)
        else:
            tables, start = self._read_tables(payload, start, quality)
        self._headers = None
        sampling = _SAMPLING.get(kind & 0x3F) if kind < 128 else None
        if sampling is not None and tables:
            interval = int.from_bytes(payload[8:10]) if kind in _RESTART_TYPES else 0
            self._headers = self._file_headers(tables, sampling, interval, width, height)
        self._append(payload[start:])
        self._due, self._overhead_bytes = len(payload) - start, start

    def _add(self, data: memoryview, offset: int, overhead_bytes: int) -> None:
        """A part that came before is left out; one further on shows that some are missing."""
        if offset < self._due:
            return
        self._continue()
        self._is_damaged |= not self._is_next(offset)
        self._append(data)
        self._due, self._overhead_bytes = offset + len(data), overhead_bytes

    def _is_next(self, offset: int) -> bool:
        """Some cameras count the headers too (a recording of SharpRTSP's: 12 bytes of each packet)."""
        return 0 <= offset - self._due <= self._overhead_bytes + _RTP_HEADER_BYTES

    def _read_tables(self, payload: memoryview, start: int, quality: int) -> tuple[tuple[bytes, ...] | None, int]:
        """Section 3.1.8: in band, or those sent before for this Q. And where the scan begins."""
        if len(payload) < start + 4:
            return None, start
        precision, size = payload[start + 1], payload[start + 2] << 8 | payload[start + 3]
        start += 4
        tables = _cut_tables(bytes(payload[start : start + size]), precision)
        if tables:
            self._tables[quality] = tables
        return self._tables.get(quality), start + size

    def _note_segments(self, data: bytes) -> None:
        """The size and the Huffman tables out of ONVIF's extension."""
        huffman = b""
        for marker, segment in _segments(data):
            if marker in _SOF and len(segment) >= 5:
                height, width = struct.unpack_from(">HH", segment, 1)
                self._given_size = (width, height)
            elif marker == _DHT:
                huffman += _segment(_DHT, segment)
        if huffman:
            self._huffman = huffman

    def _file_headers(
        self, tables: tuple[bytes, ...], sampling: int, interval: int, width: int, height: int
    ) -> bytes:
        width_px, height_px = self._size_px(width, height)
        luma, blue, red = (min(number, len(tables) - 1) for number in range(3))
        parts = [
            _segment(_DQT, (number | (16 if len(table) > _TABLE_BYTES else 0)).to_bytes() + table)
            for number, table in enumerate(tables)
        ]
        if interval:
            parts.append(_segment(_DRI, interval.to_bytes(2)))
        frame = struct.pack(">BHHB", 8, height_px, width_px, 3)
        components = bytes([1, sampling, luma, 2, 0x11, blue, 3, 0x11, red])
        is_baseline = all(len(table) == _TABLE_BYTES for table in tables)
        parts.append(_segment(_SOF[0] if is_baseline else _SOF[1], frame + components))
        scan = _segment(_SOS, bytes([3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0]))
        return b"".join([_START, *parts, self._huffman, scan])

    def _size_px(self, width: int, height: int) -> tuple[int, int]:
        """In blocks of 8 px. Above 255 of them cameras send 0, 255 or the last eight bits: then a size that was given
        elsewhere is the right one. It is so, too, where it is no multiple of 8 px."""
        exact = self._given_size
        self._is_size_guessed = exact is None or not all(
            _can_tell(blocks, pixels) for blocks, pixels in zip((width, height), exact, strict=True)
        )
        if exact is not None and not self._is_size_guessed:
            return exact
        return width * _BLOCK_PX or _WRAPPED_PX, height * _BLOCK_PX or _WRAPPED_PX

    def _finished(self, is_whole: bool) -> CodedPicture | None:
        if self._headers is None:
            return None
        scan = self._data()
        end = b"" if scan.endswith(_END) else _END
        return CodedPicture(
            data=b"".join((self._headers, scan, end)),
            timestamp=self._started,
            is_key=True,
            is_reference=False,
            is_whole=is_whole,
            follows_loss=self._follows_loss,
            is_size_guessed=self._is_size_guessed,
        )


def computed_tables(quality: int) -> tuple[bytes, ...] | None:
    """Luma and chroma for a Q of 1 to 99 (RFC 2435 section 4.2); above 100 it is reserved.

    100 is what encoders of the IJG's kind call their best: all ones.
    """
    if not 1 <= quality <= 100:
        return None
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return tuple(bytes(min(max((step * scale + 50) // 100, 1), 255) for step in table) for table in (_LUMA, _CHROMA))


def _cut_tables(data: bytes, precision: int) -> tuple[bytes, ...]:
    """`precision`: a bit for each table, from the lowest; set where its steps have 16 bits.

    Three tables are no fault: a camera's file may have one for each component (v4l2rtspserver #361).
    """
    tables: list[bytes] = []
    while data and len(tables) < 4:
        size = _TABLE_BYTES * (2 if precision >> len(tables) & 1 else 1)
        if len(data) < size:
            break
        tables.append(data[:size])
        data = data[size:]
    return tuple(tables)


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _segments(data: bytes) -> list[tuple[int, bytes]]:
    """Markers with what they hold; the rest is filled up with FF."""
    found, at = [], 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:
            at += 1
            continue
        size = max(2, int.from_bytes(data[at + 2 : at + 4]))
        found.append((data[at + 1], data[at + 4 : at + 2 + size]))
        at += 2 + size
    return found


def _can_tell(blocks: int, pixels: int) -> bool:
    """Whether the field of eight bits can stand for a size."""
    told = -(-pixels // _BLOCK_PX)
    return blocks == told & 0xFF or (told > _BLOCKS_MAX and blocks in (0, _BLOCKS_MAX))


def _size_told(fmtp: Mapping[str, str]) -> tuple[int, int] | None:
    """Width and height: `x-dimensions: 2560,1920`, `framesize: 26 2560-1920` (RFC 6064), `cliprect: 0,0,1920,2560`
    (top, left, bottom, right), or an fmtp with `width=2560;height=1920`."""
    width, height = fmtp.get("width", ""), fmtp.get("height", "")
    texts = [fmtp.get("x-dimensions", ""), fmtp.get("framesize", ""), f"{width},{height}"]
    if edges := _CLIP.fullmatch(fmtp.get("cliprect", "").strip()):
        top, left, bottom, right = map(int, edges.groups())
        texts.append(f"{right - left},{bottom - top}")
    return next(filter(None, map(_size, texts)), None)


def _size(text: str) -> tuple[int, int] | None:
    match = _SIZE.search(text.strip())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    return size if all(0 < pixels < 1 << 16 for pixels in size) else None


_HUFFMAN = b"".join(
    _segment(_DHT, bytes([number]) + table)
    for number, table in ((0x00, _LUMA_DC), (0x10, _LUMA_AC), (0x01, _CHROMA_DC), (0x11, _CHROMA_AC))
)
