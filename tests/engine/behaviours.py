"""What cameras do, as a table: all faults and oddities of the scripted camera, with the film that each needs."""

from dataclasses import replace

from tests.camera.faults import FAULTS, NO_FAULT, Fault
from tests.camera.oddities import ODDITIES

from .differential import SCENE, TRANSPORTS, Behaviour

HEVC, JPEG, MPEG4 = (replace(SCENE, codec=codec) for codec in ("hevc", "mjpeg", "mpeg4"))
FIVE = replace(SCENE, fps=5, b_frames=3, gop_s=2.0)
OPEN = replace(HEVC, fps=5, b_frames=4, gop_s=2.0, open_gop=True)
SLOW = replace(SCENE, fps=1, gop_s=4.0)
# A key frame has 13 to 19 packets: of these some are whole. In 20 s the film is over once at most.
AMOUNTS = {"lost_packets": 197, "damaged": 197, "rush": 1.9}
# Faults that show with another film than H.264's.
FILMS_OF = {
    "hevc_by_name": HEVC,
    "annexb_fragments": HEVC,
    "jpeg_offsets": JPEG,
    "rtpmap_of_other_type": JPEG,
    "static_type_sent": JPEG,
    "decoding_times": replace(SCENE, b_frames=2),
    "decoding_times_slow": FIVE,
    "decoding_times_open_gop": OPEN,
    "decoding_times_hevc": replace(HEVC, fps=5, b_frames=4, gop_s=2.0),
    "hevc_no_sprop": HEVC,
    "picture_in_6s": SLOW,
    "picture_in_12s": SLOW,
}
# TCP keeps the order of what is sent, and has no ports of its own for it.
TRANSPORTS_OF = dict.fromkeys(("swapped", "udp_other_port", "server_port_untold", "udp_outlives"), ("udp",))
GUARDED = ("basic_or_digest", "comma_after_scheme", "bare_realm", "schemes_alone")
# What libav does not play, or not for long, and this service captures all the same.
REACHES = {
    **dict.fromkeys(("hevc_by_name", "says_h265", "static_type_sent", "annexb_fragments", "jpeg_offsets"), 50),
    **dict.fromkeys(("redirect_path", "redirect_twice", "base_without_scheme", "base_path", "base_empty"), 50),
    **dict.fromkeys(
        ("comma_after_scheme", "bare_realm", "schemes_alone", "options_401", "options_405", "options_500"), 50
    ),
    **dict.fromkeys(("play_unanswered", "range_457", "get_parameter_closes"), 50),
    **dict.fromkeys(("no_content_length", "no_content_headers", "lower_case_version", "trailing_blanks"), 50),
    **dict.fromkeys(("continues", "blank_lines", "dead_session"), 50),
    "needs_reports": 150,
    "udp_outlives": 60,
    "picture_in_12s": 2,
}
_SECRET = ("user", "word")


def _behaviour(name: str, fault: Fault) -> Behaviour:
    if name in AMOUNTS:
        fault = replace(fault, amount=AMOUNTS[name])
    return Behaviour(
        fault,
        FILMS_OF.get(name, SCENE),
        credentials=_SECRET if name in GUARDED else None,
        scheme="basic" if name in ("basic_or_digest", "schemes_alone") else "digest",
        transports=TRANSPORTS_OF.get(name, TRANSPORTS),
        reaches=REACHES.get(name, -1),
    )


# What is filmed, by a camera that plays as it should.
FILMS = {
    "plays": SCENE,
    "hevc": HEVC,
    "jpeg": JPEG,
    "mpeg4": MPEG4,
    "b_frames": replace(SCENE, b_frames=2),
    "b_frames_hevc": replace(HEVC, b_frames=3),
    "b_frames_five_a_second": FIVE,
    "open_gop": OPEN,
    "long_gop": replace(SCENE, gop_s=12.0),
    "short_gop": replace(SCENE, gop_s=0.1),
    "full_range": replace(SCENE, is_full_range=True),
    "height_180": replace(SCENE, height=180),
    "height_450": replace(SCENE, width=800, height=450, noise=1.0),
    "hevc_height_180": replace(HEVC, height=180),
    "jpeg_height_180": replace(JPEG, height=180),
    "mpeg4_height_180": replace(MPEG4, height=180),
    "two_pictures_a_second": replace(SCENE, fps=2, b_frames=2, gop_s=4.0),
    "one_picture_a_second": SLOW,
}

# What is not the scripted camera's own doing.
OTHERS: dict[str, Behaviour] = {
    "tls": Behaviour(ciphers="DEFAULT", transports=("tcp",)),
    "tls_rsa_gcm": Behaviour(ciphers="AES128-GCM-SHA256", transports=("tcp",)),
    "tls_rsa_cbc": Behaviour(ciphers="AES256-SHA:@SECLEVEL=0", transports=("tcp",), reaches=50),
    "asks_for_digest": Behaviour(credentials=_SECRET),
    "asks_for_basic": Behaviour(credentials=_SECRET, scheme="basic"),
    "forgets_digest": Behaviour(credentials=_SECRET, forgets_digest=True),
    "redirects_elsewhere": Behaviour(redirects_to="127.0.0.2"),
}

BEHAVIOURS: dict[str, Behaviour] = {
    **{name: Behaviour(NO_FAULT, scene) for name, scene in FILMS.items()},
    **{name: _behaviour(name, fault) for name, fault in (FAULTS | ODDITIES).items()},
    **OTHERS,
}

_UNTOLD = "A camera that counts so cannot be told from a network that loses packets."

EXCEPTIONS: dict[str, str] = {
    "forgets_digest": "A host between the two could request the password in the clear.",
    "srtp": "Decryption is not supported, and the error says so.",
    "redirects_elsewhere": "A camera must not choose which hosts this service connects to.",
    "sequence_stands by udp": _UNTOLD,
    "sequence_by_two by udp": _UNTOLD,
    "sequence_of_pictures by udp": _UNTOLD,
}
"""What libav plays and this service refuses, with the reason: a behaviour, or a behaviour by one transport."""
