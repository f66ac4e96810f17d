"""The description that DESCRIBE answers. Pure."""

import base64
from typing import Literal

from tests.camera.clip import Clip

Media = Literal["video", "audio"]


def describe(clip: Clip, media: tuple[Media, ...]) -> str:
    """Tracks are numbered in the order of `media`: track0, track1."""
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=Scripted camera", "c=IN IP4 0.0.0.0", "t=0 0"]
    lines += ["a=control:*", "a=range:npt=0-"]
    for number, kind in enumerate(media):
        lines += _video(clip) if kind == "video" else ["m=audio 0 RTP/AVP 0", "a=rtpmap:0 PCMU/8000"]
        lines.append(f"a=control:track{number}")
    return "\r\n".join(lines) + "\r\n"


def _video(clip: Clip) -> list[str]:
    if clip.scene.codec == "mjpeg":
        return ["m=video 0 RTP/AVP 26", "a=rtpmap:26 JPEG/90000"]
    name = {"h264": "H264", "hevc": "H265", "mpeg4": "MP4V-ES"}[clip.scene.codec]
    lines = ["m=video 0 RTP/AVP 96", f"a=rtpmap:96 {name}/90000", f"a=fmtp:96 {_format(clip)}"]
    return [*lines, f"a=framerate:{clip.scene.fps}"]


def _format(clip: Clip) -> str:
    if clip.scene.codec == "mpeg4":
        return f"profile-level-id=1; config={clip.parameter_sets[0].hex().upper()}"
    sets = [base64.b64encode(nal).decode() for nal in clip.parameter_sets]
    if clip.scene.codec == "hevc":
        return "; ".join(f"sprop-{name}={nal}" for name, nal in zip(("vps", "sps", "pps"), sets, strict=True))
    profile = clip.parameter_sets[0][1:4].hex().upper()
    return f"packetization-mode=1; profile-level-id={profile}; sprop-parameter-sets={','.join(sets)}"
