"""JPEG payloads (RFC 2435) to files: tables, restart markers, sizes, fragments."""

import functools
import struct
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.jpeg import computed_tables
from streams.engine.rtp import CodedPicture
from tests.engine.rtp_film import TICKS, a_packet, decode, film, packets, push_all, read, reader_of

Plane = npt.NDArray[np.uint8]


@functools.cache
def jpeg(width_px: int, height_px: int, quality: int = 80, restarts: int = 0, sampling: str = "420") -> bytes:
    """A file with the usual Huffman tables and smooth colours."""
    down, across = np.mgrid[0:height_px, 0:width_px]
    picture = np.stack([down % 256, across % 256, (down + across) % 256], axis=2).astype(np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_RST_INTERVAL, restarts]
    factor = {"420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422}[sampling]
    done, data = cv2.imencode(".jpg", picture, [*options, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])
    assert done
    return data.tobytes()


def segments_of(file: bytes) -> list[tuple[int, bytes]]:
    """Up to the scan: markers and what they hold."""
    found, at = [], 2
    while file[at + 1] != 0xDA:
        size = int.from_bytes(file[at + 2 : at + 4])
        found.append((file[at + 1], file[at + 4 : at + 2 + size]))
        at += 2 + size
    return found


def parts_of(file: bytes) -> tuple[bytes, bytes]:
    """Its quantisation tables, without numbers, and its scan."""
    tables = b"".join(
        body[start + 1 : start + 65]
        for marker, body in segments_of(file)
        if marker == 0xDB
        for start in range(0, len(body), 65)
    )
    scan = file[2 + sum(4 + len(body) for _, body in segments_of(file)) :]
    return tables, scan[2 + int.from_bytes(scan[2:4]) :].removesuffix(b"\xff\xd9")


def sent(
    file: bytes,
    width_px: int,
    height_px: int,
    *,
    kind: int = 1,
    quality: int = 255,
    restarts: int = 0,
    tables: bytes | None = None,
    precision: int = 0,
    size: int = 700,
    first: int = 0,
    time: int = 0,
) -> list[bytes]:
    own, scan = parts_of(file)
    tables = own if tables is None else tables
    flow: list[bytes] = []
    for start in range(0, len(scan), size):
        blocks = bytes([-(-width_px // 8) & 0xFF, -(-height_px // 8) & 0xFF])
        head = struct.pack(">IBB", start, kind, quality) + blocks
        head += struct.pack(">HH", restarts, 0xFFFF) if kind >= 64 else b""
        if start == 0 and quality >= 128:
            head += struct.pack(">BBH", 0, precision, len(tables)) + tables
        is_last = start + size >= len(scan)
        payload = head + scan[start : start + size]
        flow.append(a_packet(payload, first + len(flow), time, is_marked=is_last, payload_type=26))
    return flow


def pixels(file: bytes) -> Plane:
    """By another decoder than libav's. (height, width, 3) uint8, BGR."""
    decoded = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded.astype(np.uint8)


def only(pictures: list[CodedPicture]) -> bytes:
    [picture] = pictures
    assert picture.is_whole
    assert picture.is_key
    assert not picture.is_reference
    return picture.data


@pytest.mark.parametrize(("kind", "sampling"), [(0, "422"), (1, "420"), (64, "422"), (65, "420")])
def test_a_file_is_made_up_that_holds_the_same_picture(kind: int, sampling: str) -> None:
    restarts = 3 if kind >= 64 else 0
    file = jpeg(160, 96, restarts=restarts, sampling=sampling)
    made = only(read(sent(file, 160, 96, kind=kind, restarts=restarts), "JPEG"))
    assert np.array_equal(pixels(made), pixels(file))


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 75, 99, 100])
def test_tables_are_computed_from_q(quality: int) -> None:
    """RFC 2435 section 4.2 is the formula of the IJG's library, which OpenCV has."""
    file = jpeg(64, 64, quality=quality)
    made = only(read(sent(file, 64, 64, quality=quality), "JPEG"))
    assert b"".join(computed_tables(quality) or ()) == parts_of(file)[0]
    assert np.array_equal(pixels(made), pixels(file))


@pytest.mark.parametrize("quality", [0, 101, 127])
def test_reserved_values_of_q_are_a_loss(quality: int) -> None:
    file = jpeg(64, 64)
    bad = sent(file, 64, 64, quality=quality)
    good = sent(file, 64, 64, first=len(bad), time=TICKS)
    [picture] = read([*bad, *good], "JPEG")
    assert picture.timestamp == TICKS
    assert picture.follows_loss


@pytest.mark.parametrize("kind", [2, 63, 66, 128, 255])
def test_unknown_types_are_a_loss(kind: int) -> None:
    file = jpeg(64, 64)
    bad = sent(file, 64, 64, kind=kind)
    [picture] = read([*bad, *sent(file, 64, 64, first=len(bad), time=TICKS)], "JPEG")
    assert picture.follows_loss


def test_tables_sent_once_are_used_again() -> None:
    """Q of 128 to 254: the tables stay the same, and may be left out (RFC 2435 section 3.1.8)."""
    file = jpeg(64, 64)
    first = sent(file, 64, 64, quality=130)
    second = sent(file, 64, 64, quality=130, tables=b"", first=len(first), time=TICKS)
    other = sent(file, 64, 64, quality=131, tables=b"", first=len(first) * 2, time=2 * TICKS)
    pictures = read([*first, *second, *other], "JPEG")
    assert len(pictures) == 2
    assert pictures[0].data == pictures[1].data


def test_one_table_is_for_all_components_and_three_for_one_each() -> None:
    """Three: v4l2rtspserver #361."""
    file = jpeg(64, 64)
    luma, chroma = parts_of(file)[0][:64], parts_of(file)[0][64:]
    assert chroma != luma
    three = only(read(sent(file, 64, 64, tables=luma + chroma + chroma), "JPEG"))
    assert np.array_equal(pixels(three), pixels(file))
    one = only(read(sent(file, 64, 64, tables=luma), "JPEG"))
    assert pixels(one).shape == pixels(file).shape
    assert decode("mjpeg", [one])[0][: 64 * 64] == decode("mjpeg", [file])[0][: 64 * 64]


def test_tables_of_16_bits_are_taken() -> None:
    file = jpeg(64, 64)
    wide = b"".join(bytes([0, step]) for step in parts_of(file)[0])
    made = only(read(sent(file, 64, 64, tables=wide, precision=3), "JPEG"))
    assert np.array_equal(pixels(made), pixels(file))


@pytest.mark.parametrize("tables", [b"", b"\1" * 30])
def test_tables_that_are_missing_are_a_loss(tables: bytes) -> None:
    file = jpeg(64, 64)
    assert read(sent(file, 64, 64, tables=tables), "JPEG") == []


SIZES = [(2560, 64), (64, 2064), (2048, 64), (2048, 2048)]
TOLD: dict[str, Callable[[int, int], dict[str, str]]] = {
    "x-dimensions": lambda width, height: {"x-dimensions": f"{width},{height}"},
    "framesize": lambda width, height: {"framesize": f"26 {width}-{height}"},
    "cliprect": lambda width, height: {"cliprect": f"0,0,{height},{width}"},
    "fmtp": lambda width, height: {"width": str(width), "height": str(height)},
}


@pytest.mark.parametrize(("width_px", "height_px"), SIZES)
@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
@pytest.mark.parametrize("field", ["last bits", "0", "255"])
def test_a_picture_above_2040_px_has_the_size_of_the_description(
    width_px: int, height_px: int, told: Callable[[int, int], dict[str, str]], field: str
) -> None:
    """Row 57. The field of eight bits holds what it can of the size in blocks."""
    file = jpeg(width_px, height_px)
    sizes = [px if px <= 2040 or field == "last bits" else 8 * int(field) for px in (width_px, height_px)]
    [picture] = read(sent(file, *sizes, size=60_000), "JPEG", told(width_px, height_px))
    assert np.array_equal(pixels(picture.data), pixels(file))
    assert not picture.is_size_guessed


def test_a_size_that_only_eight_bits_tell_is_a_guess() -> None:
    for fmtp in (None, {"x-dimensions": "2560,1920"}, {"cliprect": "x"}):
        assert read(sent(jpeg(160, 96), 160, 96), "JPEG", fmtp)[0].is_size_guessed


@pytest.mark.parametrize(("width_px", "height_px"), [(2048, 64), (64, 2048)])
def test_blocks_of_nought_are_256_where_nothing_tells_more(width_px: int, height_px: int) -> None:
    file = jpeg(width_px, height_px)
    assert pixels(only(read(sent(file, width_px, height_px), "JPEG"))).shape == (height_px, width_px, 3)


def test_a_size_in_the_description_that_is_not_the_streams_is_ignored() -> None:
    file = jpeg(160, 96)
    made = only(read(sent(file, 160, 96), "JPEG", {"x-dimensions": "2560,1920"}))
    assert np.array_equal(pixels(made), pixels(file))


def test_a_size_that_is_no_multiple_of_eight_is_exact_where_it_is_told() -> None:
    file = jpeg(1916, 44)
    assert pixels(only(read(sent(file, 1916, 44), "JPEG"))).shape == (48, 1920, 3)
    told = only(read(sent(file, 1916, 44), "JPEG", {"framesize": "26 1916-44"}))
    assert np.array_equal(pixels(told), pixels(file))


def onvif(packet: bytes, *segments: tuple[int, bytes]) -> bytes:
    """The packet with the file's segments in its header extension, filled up with FF."""
    data = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    data += b"\xff" * (-len(data) % 4)
    return bytes([0x90]) + packet[1:12] + struct.pack(">HH", 0xFFD8, len(data) // 4) + data + packet[12:]


def test_onvifs_extension_tells_the_size_and_the_huffman_tables() -> None:
    noise = np.random.default_rng(3).integers(90, 110, (44, 2556, 3), np.uint8)
    done, data = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_OPTIMIZE, 1])
    file = data.tobytes()
    tables = [(marker, body) for marker, body in segments_of(file) if marker == 0xC4]
    frame = [(0xC0, body) for marker, body in segments_of(file) if marker == 0xC0]
    flow = sent(file, 2556, 44)
    made = only(read([onvif(flow[0], *frame, *tables), *flow[1:]], "JPEG"))
    assert done
    assert np.array_equal(pixels(made), pixels(file))


def test_an_end_of_image_in_the_scan_is_not_doubled() -> None:
    file = jpeg(64, 64)
    flow = sent(file, 64, 64)
    flow[-1] += b"\xff\xd9"
    assert only(read(flow, "JPEG")).count(b"\xff\xd9") == 1


def test_a_part_that_comes_twice_is_taken_once() -> None:
    file = jpeg(160, 96)
    flow = sent(file, 160, 96, size=200)
    again = [
        packet[:2] + struct.pack(">H", number) + packet[4:]
        for number, packet in enumerate([flow[0], flow[1], *flow[1:]])
    ]
    assert np.array_equal(pixels(only(read(again, "JPEG"))), pixels(file))


@pytest.mark.parametrize("kind", [1, 65])
@pytest.mark.parametrize("counted", ["headers", "headers and tables"])
def test_offsets_may_count_the_headers(kind: int, counted: str) -> None:
    """Row 44: a recording of SharpRTSP's, whose offsets are 12 bytes too large for each packet before."""
    restarts = 3 if kind >= 64 else 0
    file = jpeg(160, 96, restarts=restarts)
    flow = sent(file, 160, 96, kind=kind, restarts=restarts, size=200)
    header = 12 if kind >= 64 else 8
    extra, counting = 0, []
    for number, packet in enumerate(flow):
        offset = int.from_bytes(packet[13:16]) + extra
        counting.append(packet[:13] + offset.to_bytes(3) + packet[16:])
        extra += header + (132 if number == 0 and counted == "headers and tables" else 0)
    made = only(read(counting, "JPEG"))
    assert np.array_equal(pixels(made), pixels(file))
    lost = counting[:3] + [
        packet[:2] + struct.pack(">H", 3 + at) + packet[4:] for at, packet in enumerate(counting[4:])
    ]
    assert [one.is_whole for one in read(lost, "JPEG")] == [False]


def test_a_part_that_is_missing_is_seen_without_a_number() -> None:
    flow = sent(jpeg(160, 96), 160, 96, size=200)
    left = [packet[:2] + struct.pack(">H", number) + packet[4:] for number, packet in enumerate([flow[0], *flow[2:]])]
    assert [one.is_whole for one in read(left, "JPEG")] == [False]


def test_a_picture_without_its_first_part_is_none() -> None:
    file = jpeg(160, 96)
    flow = sent(file, 160, 96, size=200)
    after = sent(file, 160, 96, first=len(flow), time=TICKS)
    pictures = read([*flow[1:], *after], "JPEG")
    assert [(one.timestamp, one.follows_loss) for one in pictures] == [(TICKS, True)]


def test_pictures_of_one_time_are_cut_at_their_first_part() -> None:
    file = jpeg(160, 96)
    flow = sent(file, 160, 96)
    pictures = read([*flow, *sent(file, 160, 96, first=len(flow))], "JPEG")
    assert len(pictures) == 2
    assert pictures[0].data == pictures[1].data


def test_a_picture_that_never_ends_is_given_up() -> None:
    file = jpeg(64, 64)
    flow = sent(file, 64, 64)
    offset = len(parts_of(file)[1])
    while offset < 17 << 20:
        head = struct.pack(">IBB", offset & 0xFFFFFF, 1, 255) + b"\x08\x08"
        flow.append(a_packet(head + bytes(60_000), len(flow), payload_type=26))
        offset += 60_000
    after = sent(file, 64, 64, first=len(flow), time=TICKS)
    next_one = sent(file, 64, 64, first=len(flow) + len(after), time=2 * TICKS)
    pictures = read([*flow, *after, *next_one], "JPEG")
    assert [(one.timestamp, one.follows_loss) for one in pictures] == [(TICKS, True)]


def test_every_picture_of_a_film_is_a_file_that_other_decoders_read() -> None:
    for one in push_all(reader_of(film("mjpeg")), packets(film("mjpeg")))[:5]:
        assert pixels(one.data).shape == (240, 320, 3)


@given(st.text(max_size=20))
def test_no_size_in_a_description_is_an_error(text: str) -> None:
    file = jpeg(64, 64)
    assert pixels(only(read(sent(file, 64, 64), "JPEG", {"x-dimensions": text}))).shape == (64, 64, 3)


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=3), st.integers(0, 255), st.integers(0, 255))
def test_no_extension_is_an_error(data: list[bytes], marker: int, other: int) -> None:
    flow = sent(jpeg(64, 64), 64, 64)
    segments = [(number, body) for number, body in zip((marker, other, 0xC0), data, strict=False)]
    assert len(read([onvif(flow[0], *segments), *flow[1:]], "JPEG")) == 1
