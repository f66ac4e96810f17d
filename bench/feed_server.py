"""GStreamer's RTSP server with one film as a row of cameras, as a program of the system's Python.

    /usr/bin/python3 feed_server.py film.mp4 --cameras 64 --phases 8

Prints "ready PORT VERSION"; /cam0, /cam1 ... are the cameras. A camera is live: its film runs on, over and over,
whoever watches, and a client joins wherever it is. Cameras of one phase share one pipeline, so the film is cut into
packets once for each phase, not for each client, and nothing is encoded. The phases lie a fraction of a key frame
interval apart, as the cameras of a site do; all in step would have 64 recorders decode in the same millisecond.
Ends on SIGTERM, and when its standard input closes. Needs a Python that has gi and nothing else.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any

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

# In mp4's own form, whose caps hold the parameter sets: so they are in the SDP from the first DESCRIBE on.
_READ = 'filesrc location="{path}" ! qtdemux ! video/x-h264,stream-format=avc ! appsink name=units sync=false'
# As cameras do: parameter sets before each key frame as well, packets that fit an Ethernet frame.
_SERVE = "( appsrc name=film is-live=true format=time ! rtph264pay name=pay0 pt=96 config-interval=-1 mtu=1400 )"
_TICK_S = 0.005  # a frame leaves at most so late
_BEHIND_S = 2.0  # after a longer pause of this program frames are left out, not sent in a burst


class Film:
    """The access units of an mp4 file, in memory: 23 MB for 46 s at 4 Mbit/s."""

    def __init__(self, path: str, fps: int) -> None:
        self.fps = fps
        self.units: list[bytes] = []
        self.caps: Any = None
        pipeline = Gst.parse_launch(_READ.format(path=path))
        pipeline.set_state(Gst.State.PLAYING)
        units = pipeline.get_by_name("units")
        while sample := units.emit("pull-sample"):
            buffer, self.caps = sample.get_buffer(), sample.get_caps()
            self.units.append(buffer.extract_dup(0, buffer.get_size()))
        pipeline.set_state(Gst.State.NULL)
        if not self.units:
            sys.exit(f"{path}: no H.264 in it")

    def buffer(self, number: int) -> Any:
        return Gst.Buffer.new_wrapped(self.units[number % len(self.units)])


class Phase(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc, unused-ignore]
    """One clock for its cameras: at second s since the start it shows frame (s + offset_s) * fps."""

    def __init__(self, film: Film, number: int, offset_s: float, started_s: float) -> None:
        super().__init__()
        self._film, self._key = film, f"phase{number}"
        self._began_s = started_s - offset_s
        self._sources: list[Any] = []
        self._sent = self._due()
        self.late_max_s = 0.0
        self.set_shared(True)
        self.set_launch(_SERVE)
        self.connect("media-configure", self._configure)

    def do_gen_key(self, _url: object) -> str:
        """The same for every address: one pipeline for all cameras of the phase."""
        return self._key

    def keep_running(self, pool: Any) -> bool:
        """Begin before the first client and go on after the last; whether that worked.

        A client that comes while the pipeline of the client before it is being ended gets an SDP without a stream.
        """
        _, url = GstRtsp.rtsp_url_parse(f"rtsp://127.0.0.1/{self._key}")
        self._media = self.construct(url)
        return bool(
            self._media.prepare(pool.get_thread(GstRtspServer.RTSPThreadType.MEDIA, GstRtspServer.RTSPContext()))
        )

    def tick(self) -> None:
        """Send what is due."""
        due = self._due()
        if due - self._sent > _BEHIND_S * self._film.fps:
            self._sent = due - 1
        while self._sent < due:
            self._sent += 1
            self._send(self._sent)

    def _due(self) -> int:
        return int((time.monotonic() - self._began_s) * self._film.fps)

    def _send(self, number: int) -> None:
        late_s = time.monotonic() - self._began_s - number / self._film.fps
        self.late_max_s = max(self.late_max_s, late_s)
        for source in self._sources:
            running_ns = source.get_current_running_time()
            if running_ns == Gst.CLOCK_TIME_NONE:
                continue  # not playing yet
            buffer = self._film.buffer(number)
            buffer.pts = buffer.dts = max(0, running_ns - int(late_s * Gst.SECOND))
            buffer.duration = Gst.SECOND // self._film.fps
            source.emit("push-buffer", buffer)

    def _configure(self, _factory: object, media: Any) -> None:
        source = media.get_element().get_by_name_recurse_up("film")
        source.set_property("caps", self._film.caps)
        self._sources.append(source)


def main() -> None:
    arguments = _arguments()
    _come_first()
    Gst.init(None)
    film = Film(arguments.film, arguments.fps)
    loop = GLib.MainLoop()
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    server.set_backlog(256)  # hundreds of clients may come at once
    server.get_session_pool().set_max_sessions(0)  # no limit
    started_s, step_s = time.monotonic(), arguments.gop_s / arguments.phases
    phases = [Phase(film, number, number * step_s, started_s) for number in range(arguments.phases)]
    for camera in range(arguments.cameras):
        server.get_mount_points().add_factory(f"/cam{camera}", phases[camera % len(phases)])
    threading.Thread(target=_run, args=(phases,), daemon=True).start()
    if not server.attach(None):
        sys.exit("no port to be had")
    for number in (signal.SIGTERM, signal.SIGINT):
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, loop.quit)
    GLib.io_add_watch(0, GLib.PRIORITY_DEFAULT, GLib.IO_IN | GLib.IO_HUP, lambda *_: _heard(loop, phases))
    if not all(phase.keep_running(server.get_thread_pool()) for phase in phases):
        sys.exit("a pipeline does not start")
    print(f"ready {server.get_bound_port()} {Gst.version_string()}", flush=True)
    loop.run()


def _come_first() -> None:
    """Cameras are other machines: a full one here must not slow them. Only root may; else they take their turn.

    GStreamer's server hands a client one frame after the other and drops it when it is a hundred behind, so waiting
    40 ms for each turn is enough to lose clients that would keep up: seen at a load of 20 on 4 cores.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serves a film as live cameras.")
    parser.add_argument("film")
    parser.add_argument("--cameras", type=int, default=64)
    parser.add_argument("--phases", type=int, default=8)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--gop-s", type=float, default=2.0)
    return parser.parse_args()


def _run(phases: list[Phase]) -> None:
    """In a thread of its own: a pipeline that is being prepared waits for its first frame."""
    while True:
        for phase in phases:
            phase.tick()
        time.sleep(_TICK_S)


def _heard(loop: Any, phases: list[Phase]) -> bool:
    """Any line asks how late the latest frame since the last line left; the end of the input ends the program."""
    if not os.read(0, 4096):
        loop.quit()
        return False
    print(f"late {max(phase.late_max_s for phase in phases):.4f}", flush=True)
    for phase in phases:
        phase.late_max_s = 0.0
    return True


if __name__ == "__main__":
    main()
