"""Session descriptions as cameras write them: FIELD.md row 20, each shape once met by somebody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.encodings import ENCODINGS
from streams.engine.sdp import Track, aggregate_control, controls, join, parse, plain_url, resolve
from tests.camera.clip import Codec, Scene, encode
from tests.camera.sdp import describe

BASE = "rtsp://camera/live/"
H264 = ["m=video 0 RTP/AVP 96", "a=rtpmap:96 H264/90000", "a=fmtp:96 packetization-mode=1", "a=control:track1"]
AUDIO = ["m=audio 0 RTP/AVP 0", "a=rtpmap:0 PCMU/8000", "a=control:track0"]


def described(*lines: str, end: str = "\r\n") -> bytes:
    return end.join(["v=0", "s=x", "t=0 0", *lines, ""]).encode("latin-1")


def only(*lines: str, base: str = BASE, end: str = "\r\n") -> Track:
    (track,) = parse(described(*lines, end=end), base)
    return track


@pytest.mark.parametrize(
    ("codec", "encoding", "payload_type"),
    [("h264", "H264", 96), ("hevc", "H265", 96), ("mpeg4", "MP4V-ES", 96), ("mjpeg", "JPEG", 26)],
)
def test_each_codec_of_the_scripted_camera_is_told(codec: Codec, encoding: str, payload_type: int) -> None:
    whole = encode(Scene(160, 120, (90,), codec=codec, fps=10))
    (track,) = parse(describe(whole, ("audio", "video")).encode(), BASE)
    assert (track.encoding, track.payload_type, track.clock_rate) == (encoding, payload_type, 90_000)
    assert track.control == "rtsp://camera/live/track1"
    assert track.frame_rate_fps == (None if codec == "mjpeg" else 10)


def test_parameters_keep_their_values_and_lose_the_case_of_their_names() -> None:
    sets = "Z0KgKedAPAET8uAIEAABd2AAK/IGAAADAC+vCA==,aN48gA=="
    for fmtp in (
        f"Packetization-Mode=1;SPROP-parameter-sets={sets}",
        f" packetization-mode=1 ;  sprop-parameter-sets={sets} ;",
    ):
        track = only(*H264[:2], f"a=fmtp:96 {fmtp}")
        assert track.fmtp == {"packetization-mode": "1", "sprop-parameter-sets": sets}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("x-dimensions:2592,1944", "x-dimensions"),
        ("FrameSize:26 2592-1944", "framesize"),
        ("cliprect:0,0,1944,2592", "cliprect"),
    ],
)
def test_a_size_that_is_no_part_of_fmtp_is_told_with_it(line: str, name: str) -> None:
    """JPEG over RTP cannot tell one above 2040 px; below which of the m= lines it stands does matter."""
    jpeg = ["m=video 0 RTP/AVP 26", "a=control:track1"]
    size = line.partition(":")[2]
    assert only(*jpeg, f"a={line}", "a=fmtp:26 quality=5").fmtp == {name: size, "quality": "5"}
    assert only(*jpeg, "m=application 0 RTP/AVP 107", f"a={line}").fmtp == {}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n", "\r", "\n\n"])
def test_any_end_of_line_will_do(end: str) -> None:
    assert only(*H264, end=end) == only(*H264)


def test_lines_may_be_missing_or_junk() -> None:
    """retina #33 #52, go2rtc #679; retina #70; rtsp-client-android #90."""
    text = "m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\na=control:trackID=0"
    assert parse(text.encode(), BASE)[0].control == BASE + "trackID=0"
    junk = [
        "",
        "x",
        "=",
        "a=",
        "a=fmtp:",
        "a=fmtp:96",
        "a=rtpmap",
        "a=rtpmap:x",
        "b=AS:",
        "i=K\xfcche",
        "\0\0",
        "m=",
        "m",
    ]
    broken = ["m=audio 0 RTP/AVP (null)", "a=rtpmap", "m=application/MERCURY 0 RTP/AVP smart/1/90000"]
    assert parse(described(*junk, *H264, *junk, *broken), BASE) == parse(described(*H264), BASE)


def test_names_may_be_in_upper_case_and_have_spaces_around_them() -> None:
    track = only("M=VIDEO 0 RTP/AVP  96", " A=RTPMAP: 96  h264 / 90000 ", "a=Framerate: 12.5", "a=CONTROL: track1 ")
    assert (track.encoding, track.control, track.frame_rate_fps) == ("H264", BASE + "track1", 12.5)


@pytest.mark.parametrize(
    ("lines", "encoding"),
    [
        (["m=video 0 RTP/AVP 26"], "JPEG"),
        (["m=video 0 RTP/AVP 96", "a=fmtp:96 sprop-parameter-sets=Z0I=,aM4="], "H264"),
        (["m=video 0 RTP/AVP 96", "a=fmtp:96 sprop-vps=QAE=;sprop-sps=QgE=;sprop-pps=RAE="], "H265"),
        (["m=video 0 RTP/AVP 96", "a=fmtp:96 profile-level-id=1;config=000001B0"], "MP4V-ES"),
        (["m=video 0 RTP/AVP 96", "a=rtpmap:97 H264/90000"], "H264"),
        (["m=video 0 RTP/AVP", "a=rtpmap:97 H264/90000"], "H264"),
        (["m=video 0 RTP/AVP 96"], ""),
    ],
)
def test_an_encoding_that_is_not_told_is_found_all_the_same(lines: list[str], encoding: str) -> None:
    track = only(*lines)
    assert (track.encoding, track.clock_rate) == (encoding, 90_000)


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("HEVC", "H265"), ("hevc", "H265"), ("X-H265", "H265"), ("x-h264", "H264"), ("AVC", "H264"), ("MJPEG", "JPEG")],
)
def test_another_name_of_an_encoding_is_the_registered_one(name: str, encoding: str) -> None:
    """Row 27."""
    assert only("m=video 0 RTP/AVP 96", f"a=rtpmap:96 {name}/90000").encoding == encoding
    assert encoding in ENCODINGS


def test_a_name_that_means_nothing_stays() -> None:
    lines = ["m=video 0 RTP/AVP 96", "a=rtpmap:96 X-Vendor/90000", "a=fmtp:96 sprop-parameter-sets=Z0I=,aM4="]
    assert only(*lines).encoding == "X-VENDOR"


@pytest.mark.parametrize("static", [26, 0, 33])
def test_an_rtpmap_of_another_type_than_the_m_line_is_meant_for_it(static: int) -> None:
    """Row 58: a static type, and a dynamic one with parameters of its own."""
    track = only(f"m=video 0 RTP/AVP {static}", "a=rtpmap:96 H264/90000", "a=fmtp:96 packetization-mode=1")
    assert (track.encoding, track.payload_type, track.fmtp) == ("H264", static, {"packetization-mode": "1"})


def test_a_static_type_gives_way_to_one_with_an_rtpmap() -> None:
    track = only("m=video 0 RTP/AVP 26 96", "a=rtpmap:96 H264/90000")
    assert (track.encoding, track.payload_type) == ("H264", 96)


@pytest.mark.parametrize("rate", ["", "/", "/0", "/x", "/99999999999"])
def test_a_clock_rate_that_cannot_be_is_that_of_all_video(rate: str) -> None:
    assert only("m=video 0 RTP/AVP 96", f"a=rtpmap:96 H264{rate}").clock_rate == 90_000


def test_of_several_payload_types_the_one_that_is_known_counts() -> None:
    lines = [
        "m=video 0 RTP/AVP 98 96 97",
        "a=rtpmap:98 X-VENDOR/90000",
        "a=rtpmap:96 H265/90000",
        "a=rtpmap:97 H264/1",
    ]
    track = only(*lines, "a=fmtp:97 a=1", "a=fmtp:96 b=2")
    assert (track.encoding, track.payload_type, track.fmtp) == ("H265", 96, {"b": "2"})


def test_parameters_below_the_wrong_line_are_found() -> None:
    """AlexxIT/WebRTC #419."""
    track = only(*H264[:2], *AUDIO, "a=fmtp:96 sprop-parameter-sets=Z0IAH5WoFAFuQA==,aM48gA==")
    assert track.fmtp == {"sprop-parameter-sets": "Z0IAH5WoFAFuQA==,aM48gA=="}


def test_several_video_tracks_come_in_order_and_sound_does_not() -> None:
    second = ["m=video 0 RTP/AVP 97", "a=rtpmap:97 H265/90000", "a=control:track2"]
    tracks = parse(described(*AUDIO, *H264, *AUDIO, *second), BASE)
    assert [(track.encoding, track.control) for track in tracks] == [
        ("H264", BASE + "track1"),
        ("H265", BASE + "track2"),
    ]


def test_a_track_for_us_to_send_on_is_left_out() -> None:
    back = ["m=video 0 RTP/AVP 97", "a=rtpmap:97 H264/90000", "a=control:back"]
    for direction in ("sendonly", "inactive"):
        assert only(*back, f"a={direction}", *H264, "a=recvonly").control == BASE + "track1"


def test_unless_the_camera_means_itself() -> None:
    """go2rtc #771."""
    assert only(*H264, "a=sendonly", *AUDIO).encoding == "H264"


@pytest.mark.parametrize("text", [b"", b"\0", b"m=audio 0 RTP/AVP 0", described(*AUDIO), b"a=rtpmap:96 H264/90000"])
def test_without_video_there_is_no_track(text: bytes) -> None:
    assert parse(text, BASE) == ()


@pytest.mark.parametrize(
    ("base", "control", "url"),
    [
        ("rtsp://c/live/", "track1", "rtsp://c/live/track1"),
        ("rtsp://c/live", "track1", "rtsp://c/live/track1"),
        ("rtsp://c/live.sdp", "trackID=1", "rtsp://c/live.sdp/trackID=1"),
        (
            "rtsp://c/cam/realmonitor?channel=1&subtype=0/",
            "trackID=0",
            "rtsp://c/cam/realmonitor?channel=1&subtype=0/trackID=0",
        ),
        ("rtsp://c/cam/realmonitor?channel=1", "trackID=0", "rtsp://c/cam/realmonitor?channel=1/trackID=0"),
        ("rtsp://c/live/", "/track1", "rtsp://c/live/track1"),
        ("rtsp://c/live", "?ctype=video", "rtsp://c/live?ctype=video"),
        ("rtsp://c/live", "*", "rtsp://c/live"),
        ("rtsp://c/live", "", "rtsp://c/live"),
        ("rtsp://c/live", "RTSP://10.0.0.7/video", "rtsp://10.0.0.7/video"),
        ("rtsp://c/live", "rtsp://me:word@10.0.0.7/video", "rtsp://10.0.0.7/video"),
        ("rtsp://c/live", "rtsp://10.0.0.7/a@b", "rtsp://10.0.0.7/a@b"),
        ("rtsp://c/live", 'K\xfcche "1"\t\x7f2', "rtsp://c/live/K%FCche%20%221%22%09%7F2"),
    ],
)
def test_a_control_becomes_the_url_that_cameras_expect(base: str, control: str, url: str) -> None:
    assert join(base, control) == url
    assert "\r" not in join(base, control + "\rX: y")


def test_without_a_control_a_track_is_set_up_at_the_base() -> None:
    assert only(*H264[:3]).control == BASE


def test_a_session_wide_control_is_the_base_only_if_it_is_absolute() -> None:
    for control, base in (("*", BASE), ("rtsp://nat/x", "rtsp://nat/x/"), ("sub", BASE)):
        text = described(f"a=control:{control}", *H264)
        assert parse(text, BASE)[0].control == base + "track1"
    assert aggregate_control(described("a=control:*", *H264), BASE) == BASE
    assert aggregate_control(described(*H264), BASE) == BASE
    assert aggregate_control(described("a=control:sub", *H264), BASE) == BASE + "sub"


def test_a_control_that_begins_with_the_path_of_the_base_is_an_absolute_path() -> None:
    base = BASE.removesuffix("/")
    path = base[base.index("/", len("rtsp://")) :]
    assert join(BASE, f"{path}/track1") == join(base, f"{path}/track1") == f"{base}/track1"
    assert join(BASE, "/track1") == f"{base}/track1"
    assert join(BASE, f"{path}2/track1") == f"{base}{path}2/track1"


REQUEST = "rtsp://10.0.0.9:8554/live/a?x=1"


@pytest.mark.parametrize(
    ("reference", "resolved"),
    [
        ("rtsp://10.0.0.7/b", "rtsp://10.0.0.7/b"),
        ("rtsp://me:word@10.0.0.7/b", "rtsp://10.0.0.7/b"),
        ("//10.0.0.7/b", "rtsp://10.0.0.7/b"),
        ("/b", "rtsp://10.0.0.9:8554/b"),
        ("b/", "rtsp://10.0.0.9:8554/live/b/"),
        ("../b", "rtsp://10.0.0.9:8554/b"),
        ("?y=2", "rtsp://10.0.0.9:8554/live/a?y=2"),
        ("192.168.253.220:1935/", "rtsp://192.168.253.220:1935/"),
        ("10.0.0.7/b/", "rtsp://10.0.0.7/b/"),
        ("camera:554/b/", "rtsp://camera:554/b/"),
        ("10.0.0.9", "rtsp://10.0.0.9:8554"),
        ("10.0.0.9/b", "rtsp://10.0.0.9:8554/b"),
        ("[::7]:554/b", "rtsp://[::7]:554/b"),
        ("http://10.0.0.7/b", ""),
        ("//[", ""),
        ("", ""),
    ],
)
def test_a_reference_is_resolved_against_the_request(reference: str, resolved: str) -> None:
    """go2rtc #1852 has a host without its scheme."""
    assert resolve(REQUEST, reference) == resolved


def test_the_scheme_of_the_request_stays() -> None:
    assert resolve("rtsps://10.0.0.9/live", "/b") == "rtsps://10.0.0.9/b"


def test_the_controls_are_those_of_all_tracks_that_are_for_us() -> None:
    text = described(
        "m=audio 0 RTP/AVP 8", "a=control:sound", *H264, "m=application 0 RTP/AVP 107", "a=control:sound",
        "m=audio 0 RTP/AVP 0", "a=control:back", "a=sendonly", "m=application/x 0 RTP/AVP 99", "a=control:other",
        "m=text 0 RTP/AVP 98", "a=control:rtsp://nat/text",
    )  # fmt: skip
    assert controls(text, BASE) == (f"{BASE}sound", f"{BASE}track1", "rtsp://nat/text")


@pytest.mark.parametrize(
    ("media", "attribute", "is_encrypted"),
    [
        ("RTP/AVP", "a=x:y", False),
        ("RTP/SAVP", "a=x:y", True),
        ("rtp/savpf", "a=x:y", True),
        ("UDP/TLS/RTP/SAVPF", "a=x:y", True),
        ("RTP/AVP", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x", True),
    ],
)
def test_srtp_is_told(media: str, attribute: str, is_encrypted: bool) -> None:
    lines = [H264[0].replace("RTP/AVP", media), *H264[1:], attribute]
    assert only(*lines).is_encrypted == is_encrypted


def test_a_scheme_that_is_named_twice_counts_once() -> None:
    """go2rtc #208."""
    assert plain_url(" rtsp://rtsp://camera:554/stream1/ ") == "rtsp://camera:554/stream1/"
    assert plain_url("/stream1/") == plain_url("http://camera/") == plain_url("") == ""


@pytest.mark.parametrize("told", ["0", "-1", "nan", "inf", "1e9", "x", ""])
def test_a_frame_rate_that_cannot_be_is_none(told: str) -> None:
    assert only(*H264, f"a=framerate:{told}").frame_rate_fps is None


def test_of_several_frame_rates_the_first_usable_one_counts() -> None:
    """Row 49: a camera of retina's recordings says 0.000000 first."""
    track = only(*H264, "a=framerate:0.000000", "a=x-framerate:", "a=framerate:12.5", "a=framerate:25")
    assert track.frame_rate_fps == 12.5


def test_a_track_does_not_tell_its_url() -> None:
    """A URL may hold a secret in its path or query."""
    assert "word" not in repr(only(*H264, base="rtsp://camera/live?password=word"))


LINES = st.sampled_from(
    [*H264, *AUDIO, "a=fmtp:96", "m=video", "a=control:*", "a=recvonly", "a=framerate:x", "\xb2=\xb3"]
)


@given(st.binary() | st.lists(LINES | st.text(), max_size=12).map(lambda lines: "\n".join(lines).encode()))
def test_nothing_makes_it_fail(text: bytes) -> None:
    for track in parse(text, BASE):
        assert 0 <= track.payload_type <= 127
        assert track.clock_rate > 0
        assert track.control.isascii()
        assert not set(track.control) & set(' \r\n\t"')
    assert aggregate_control(text, BASE)
    assert all(url.isascii() for url in controls(text, BASE))


@given(st.text(st.characters(max_codepoint=255)))
def test_no_reference_makes_it_fail(reference: str) -> None:
    resolved = resolve(BASE, reference)
    assert resolved == "" or resolved.startswith(("rtsp://", "rtsps://"))
    assert not set(resolved) & set(' \r\n\t"')


@given(
    st.sampled_from(["a=fmtp:96 ", "m=video ", "a=rtpmap:96 ", "a=rtpmap:"]),
    st.text(alphabet="\u00b2\u06630123 /;=x"),
)
def test_digits_that_only_look_like_some_do_not_make_it_fail(start: str, rest: str) -> None:
    parse(f"m=video 0 RTP/AVP 96\n{start}{rest}".encode(), BASE)
    parse(f"m=video 0 RTP/AVP 96\n{start}{rest}".encode("latin-1", "replace"), BASE)
