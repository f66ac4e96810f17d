"""GStreamer's RTSP server with mp4 files, as a program: the second opinion on what a camera is.

    /usr/bin/python3 gst_server.py --port 0 name=film.mp4 [name=film.mp4 ...]

Prints "ready PORT". Each client gets the film from its start, in real time; nothing is encoded. Ends on
SIGTERM, and when its standard input closes: a test run that was killed leaves nobody behind. Needs a Python
that has gi and nothing else, so it imports none of ours.
"""

import argparse
import os
import signal
import sys

import gi  # type: ignore[import-not-found, import-untyped, unused-ignore]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")

from gi.repository import (  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: E402
    GLib,
    Gst,
    GstRtsp,
    GstRtspServer,
)

# By the name that an mp4 file gives its codec. config-interval=-1: parameter sets before each key frame.
_PAYLOADERS = {
    b"avc1": "h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1",
    b"hev1": "h265parse ! rtph265pay name=pay0 pt=96 config-interval=-1",
    b"hvc1": "h265parse ! rtph265pay name=pay0 pt=96 config-interval=-1",
    b"mp4v": "mpeg4videoparse ! rtpmp4vpay name=pay0 pt=96 config-interval=-1",
}


def main() -> None:
    arguments = _arguments()
    Gst.init(None)
    loop = GLib.MainLoop()
    server = GstRtspServer.RTSPServer()
    server.set_address(arguments.host)
    server.set_service(str(arguments.port))
    server.get_session_pool().set_max_sessions(0)  # no limit
    for film in arguments.films:
        name, _, path = film.partition("=")
        server.get_mount_points().add_factory(f"/{name}", _factory(path, has_lock=arguments.user is not None))
    if arguments.user is not None:
        server.set_auth(_auth(arguments.user, arguments.password, arguments.auth))
    if not server.attach(None):
        sys.exit(f"port {arguments.port} is taken")
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGTERM, loop.quit)
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, loop.quit)
    GLib.io_add_watch(0, GLib.PRIORITY_DEFAULT, GLib.IO_IN | GLib.IO_HUP, lambda *_: _ended(loop))
    print(f"ready {server.get_bound_port()}", flush=True)
    loop.run()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serves mp4 films over RTSP.")
    parser.add_argument("films", nargs="+", metavar="NAME=PATH")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("--auth", choices=["digest", "basic"], default="digest")
    return parser.parse_args()


def _factory(path: str, has_lock: bool) -> "GstRtspServer.RTSPMediaFactory":
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_shared(False)
    factory.set_launch(f'( filesrc location="{path}" ! qtdemux ! {_PAYLOADERS[_codec(path)]} )')
    if has_lock:
        factory.set_permissions(_permissions())
    return factory


def _codec(path: str) -> bytes:
    """The first sample entry: "stsd", version and flags, a count, a size, a name of four letters."""
    with open(path, "rb") as file:
        data = file.read()
    start = data.index(b"stsd")
    return data[start + 16 : start + 20]


def _permissions() -> "GstRtspServer.RTSPPermissions":
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    return permissions


def _auth(user: str, password: str, scheme: str) -> "GstRtspServer.RTSPAuth":
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    if scheme == "basic":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    else:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, token)
    return auth


def _ended(loop: "GLib.MainLoop") -> bool:
    """Whether to go on watching standard input."""
    if os.read(0, 4096):
        return True
    loop.quit()
    return False


if __name__ == "__main__":
    main()
