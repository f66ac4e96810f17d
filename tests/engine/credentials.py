"""Sixty-odd ways to write a camera's credentials, and what the camera is to be told."""

import string
from dataclasses import dataclass
from urllib.parse import quote

# What ASCII has beside letters and digits, and what people type beyond it.
SPECIAL = [*string.punctuation, " "]
LONG = "Zr0-" * 25


@dataclass(frozen=True, slots=True)
class Given:
    """`text` has HOST in it. `username` None: no userinfo; the path that the camera knows has the secrets then."""

    text: str
    username: str | None
    password: str = ""
    path: str = "demo"
    secrets: tuple[str, ...] = ()
    """Of the query or the path."""

    def url(self, host: str) -> str:
        return self.text.replace("HOST", host)


def _raw(character: str) -> Given:
    return Given(f"rtsp://viewer:Qx{character}7pw@HOST/demo", "viewer", f"Qx{character}7pw")


def _encoded(character: str) -> Given:
    user, password = f"us{character}er", f"{character}Qy{character}8pw{character}"
    return Given(f"rtsp://{quote(user, safe='')}:{quote(password, safe='')}@HOST/demo", user, password)


def _query(text: str, *secrets: str) -> Given:
    return Given(f"rtsp://HOST/demo?{text}", None, path=f"demo?{text}", secrets=secrets)


TABLE = [
    *map(_raw, SPECIAL),
    *map(_encoded, SPECIAL),
    Given("rtsp://me@mail.example:Qx7pw@HOST/demo", "me@mail.example", "Qx7pw"),
    Given("rtsp://viewer:p@ss/w#r?d&a=b;c@HOST/demo", "viewer", "p@ss/w#r?d&a=b;c"),
    Given("rtsp://viewer:@@@@HOST/demo", "viewer", "@@@"),
    Given("rtsp://viewer://x@HOST/demo", "viewer", "//x"),
    Given("rtsp://viewer:a:b:c@HOST/demo", "viewer", "a:b:c"),
    Given("rtsp://viewer:100%@HOST/demo", "viewer", "100%"),
    Given("rtsp://viewer:%zz%4@HOST/demo", "viewer", "%zz%4"),
    Given("rtsp://viewer:a%2525b@HOST/demo", "viewer", "a%25b"),
    Given("rtsp://viewer:a+b c@HOST/demo", "viewer", "a+b c"),
    Given("rtsp://viewer:pässwörd-日本@HOST/demo", "viewer", "pässwörd-日本"),
    Given("rtsp://%E7%94%A8%E6%88%B7:%C3%A9t%C3%A9@HOST/demo", "用户", "été"),
    Given("rtsp://viewer:\N{GRINNING FACE}7pw@HOST/demo", "viewer", "\N{GRINNING FACE}7pw"),
    Given(f"rtsp://viewer:{LONG}@HOST/demo", "viewer", LONG),
    Given(f"rtsp://viewer:{'%40' * 100}@HOST/demo", "viewer", "@" * 100),
    Given("rtsp://viewer@HOST/demo", "viewer"),
    Given("rtsp://viewer:@HOST/demo", "viewer"),
    Given("rtsp://:Qx7pw@HOST/demo", "", "Qx7pw"),
    Given("rtsp://@HOST/demo", ""),
    _query("token=t0ken-v4lue", "t0ken-v4lue"),
    _query("user=viewer&pwd=Qx7pw", "viewer", "Qx7pw"),
    _query("user=&pwd=", "", ""),
    _query("channel=1&usr=viewer&psw=a%2526b&key=k3y-v4lue", "viewer", "a%2526b", "k3y-v4lue"),
    _query("auth=YWRtaW46UXg3cHc=", "YWRtaW46UXg3cHc="),
    Given(
        "rtsp://HOST/user=viewer_password=tlJwpbo6_channel=1_stream=0.sdp", None,
        path="user=viewer_password=tlJwpbo6_channel=1_stream=0.sdp", secrets=("tlJwpbo6",),
    ),
    Given("rtsp://viewer:Qx7pw@HOST/demo?token=t0ken", "viewer", "Qx7pw", "demo?token=t0ken", ("t0ken",)),
]  # fmt: skip
