"""One capture from the command line: no server, no database, no key."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings as configured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from streams import given_address, whole_file
from streams.engine import composer
from streams.engine.clock import Stop
from streams.engine.deadlines import FIRST_PICTURE_S, OPENING_S
from streams.engine.report import Picture, Settings
from streams.engine.solo import LOOK_S, NoRecorder, Solo
from streams.exits import Exit
from streams.models import DEFAULT_COUNT, DEFAULT_INTERVAL_S, MAX_COUNT, MAX_INTERVAL_S, MIN_INTERVAL_S, Transport
from streams.private import private_paths
from streams.progress import Bar, Lines, Progress, Silence, printable
from streams.terminal import mention, say, within

MAX_DURATION_S = 366 * 86_400.0
EXITS = {
    "complete": Exit.DONE,
    "not_enough_frames": Exit.NOT_ENOUGH_FRAMES,
    "no_frame": Exit.NO_FRAME,
    "cannot_write": Exit.CANNOT_WRITE,
    "no_grid": Exit.FAILED,
}
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

EPILOG = f"""\
The address may be '-': then it is the first line of standard input, which no list of processes shows. A password
apart comes with --password-stdin or in the environment variable {given_address.PASSWORD_VARIABLE}, for an address
with a user and no password, rtsp://user@host/path, or with --username. Both are taken as they are: nothing in them
has to be escaped. Credentials among the arguments are written over at once, but whatever started this command may
show them still.

Ctrl-C and SIGTERM end the capture early; the grid is written all the same. A second one ends it at once, without.

exit codes:
  {Exit.DONE:<3} all frames were captured, and the grid is written
  {Exit.FAILED:<3} a fault of this program
  {Exit.USAGE:<3} wrong arguments or address
  {Exit.NOT_ENOUGH_FRAMES:<3} fewer frames than asked for; the grid of those is written
  {Exit.NO_FRAME:<3} not one frame; nothing is written
  {Exit.CANNOT_WRITE:<3} the grid or a frame cannot be written where it should, or standard output cannot
  {Exit.KILLED:<3} ended at once by a second Ctrl-C; nothing is written
"""


class Command(BaseCommand):
    help = (
        "Captures one RTSP camera and writes the grid of its brightest frames. Needs no server, no database and no "
        "writable folder but the output's and one for a moment's files (TMPDIR)."
    )
    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        options |= {"epilog": EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
        return super().create_parser(prog_name, subcommand, **options)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("rtsp_url", help="rtsp:// or rtsps://, or '-' to read it from standard input")
        parser.add_argument(
            "--interval", type=within(MIN_INTERVAL_S, MAX_INTERVAL_S, float, "seconds"), metavar="S",
            default=DEFAULT_INTERVAL_S, help="seconds from one sample to the next (%(default)g)",
        )  # fmt: skip
        parser.add_argument(
            "--duration", type=within(MIN_INTERVAL_S, MAX_DURATION_S, float, "seconds"), metavar="S",
            help="seconds of capturing, from the first sample on; without a sample the capture ends after as long; "
            f"a camera that is only slow gets {OPENING_S:g} s to open the stream and then {FIRST_PICTURE_S:g} s for "
            "its first picture; without it until Ctrl-C",
        )  # fmt: skip
        parser.add_argument(
            "--count", type=within(1, MAX_COUNT, int, "a whole number"), default=DEFAULT_COUNT, metavar="N",
            help="frames to keep (%(default)s)",
        )  # fmt: skip
        parser.add_argument("--transport", choices=Transport.values, default=Transport.TCP.value)
        parser.add_argument(
            "--output", type=Path, default=Path("grid.jpg"), metavar="FILE",
            help="where the grid goes (%(default)s); what is there is replaced only when the capture is over",
        )  # fmt: skip
        parser.add_argument(
            "--frames-dir", type=Path, metavar="DIR", help="each frame as well: frame-01.jpg is the brightest"
        )
        parser.add_argument("--username", metavar="NAME", help="for the camera, if the address has none")
        parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
        parser.add_argument(
            "--no-verify-certificate", dest="verify_certificate", action="store_false",
            help="take any certificate of a camera by rtsps",
        )  # fmt: skip
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else")
        parser.add_argument("--quiet", action="store_true", help="no progress; errors and the exit code alone")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            result = self._capture(options)
        except given_address.BadAddress as error:
            fields = {"rtsp_url": {"code": error.code, "message": str(error)}}
            self._end(Exit.USAGE, {"code": error.code, "message": str(error), "fields": fields}, options)
        except whole_file.CannotWrite as error:
            self._end(Exit.CANNOT_WRITE, {"code": "cannot_write", "message": str(error), "fields": {}}, options)
        except NoRecorder as error:
            self._end(Exit.FAILED, {"code": "no_recorder", "message": str(error), "fields": {}}, options)
        except KeyboardInterrupt:
            raise CommandError("Ended at once: nothing is written.", returncode=Exit.KILLED) from None
        else:
            self._end(EXITS[result["code"]], result, options)

    def _capture(self, options: dict[str, Any]) -> dict[str, Any]:
        """What it has come to, with the files written. What cannot work is told before the camera is asked."""
        networks = configured.CAPTURE_ALLOWED_NETWORKS
        address = given_address.read(
            options["rtsp_url"],
            username=options["username"],
            is_password_on_stdin=options["password_stdin"],
            networks=networks,
        )
        whole_file.check(options["output"])
        if options["frames_dir"]:
            whole_file.make_folder(options["frames_dir"])
        settings = Settings(
            address,
            options["interval"],
            options["count"],
            options["transport"],
            verify_certificate=options["verify_certificate"],
            networks=networks,
            redirect_ports=configured.CAPTURE_REDIRECT_PORTS,
            closed=private_paths(),
            memory_bytes=configured.CAPTURE_MEMORY_MB << 20,
        )
        begun_at = datetime.now(UTC)
        with _told_to_end() as stop:
            with Solo(settings) as capture, closing(self._progress(options)) as progress:
                ended_by = _run(capture, stop, progress, options["duration"])
            result = _result(capture, begun_at, ended_by)
            _write(capture.pictures, result, options["output"], options["frames_dir"])
        return result

    def _progress(self, options: dict[str, Any]) -> Progress:
        if options["quiet"]:
            return Silence()
        return Bar(options["duration"]) if sys.stderr.isatty() else Lines(self._say)

    def _say(self, line: str) -> None:
        mention(self.stderr, line)

    def _end(self, code: Exit, result: dict[str, Any], options: dict[str, Any]) -> None:
        if options["json"]:
            say(self.stdout, json.dumps(result, indent=2))
        message = printable(result["message"])
        if code is not Exit.DONE:
            raise CommandError(f"{message} ({result['code']})", returncode=code)
        if not options["json"] and not options["quiet"]:
            say(self.stdout, printable(f"{result['output']}: {message}"))


def _run(capture: Solo, stop: Stop, progress: Progress, duration_s: float | None) -> str:
    """Until the time is over, `stop` is set or it has failed for good; which of them it was."""
    begun_s, has_begun = time.monotonic(), False
    connections, slow_s = 0, OPENING_S
    while True:
        if not has_begun and capture.counters.samples:
            begun_s, has_begun = time.monotonic(), True
        elapsed_s = time.monotonic() - begun_s
        if capture.counters.connections != connections:
            connections, slow_s = capture.counters.connections, elapsed_s + FIRST_PICTURE_S
        progress.show(capture, elapsed_s)
        is_slow = not has_begun and not capture.status.error_code
        left_s = LOOK_S if duration_s is None else max(duration_s, slow_s if is_slow else 0.0) - elapsed_s
        if stop.is_set() or capture.is_over or left_s <= 0:
            break
        capture.look(stop, min(LOOK_S, left_s))
    capture.leave()
    if stop.is_set():
        return "signal"
    return "failure" if capture.is_over else "duration"


def _result(capture: Solo, begun_at: datetime, ended_by: str) -> dict[str, Any]:
    """The names are those of /stop's JSON."""
    counters, status, settings = capture.counters, capture.status, capture.settings
    error = {"code": status.error_code, "message": printable(status.error_text)} if status.error_code else None
    code = _code(len(capture.pictures), settings.count)
    return {
        "code": code,
        "message": _sentence(code, len(capture.pictures), settings.count, counters.samples, error),
        "url": settings.address.public,
        "interval": settings.interval_s,
        "count": settings.count,
        "transport": settings.transport,
        "started_at": begun_at.isoformat(),
        "finished_at": datetime.now(UTC).isoformat(),
        "ended_by": ended_by,
        "samples": counters.samples,
        "missed": counters.missed,
        "rejected": counters.rejected,
        "repeated": counters.repeated,
        "connections": counters.connections,
        "error": error,
        "frames": [_frame(rank, picture) for rank, picture in enumerate(capture.pictures, 1)],
        "output": None,
    }


def _frame(rank: int, picture: Picture) -> dict[str, Any]:
    return {
        "rank": rank,
        "score": round(picture.score, 3),
        "captured_at": datetime.fromtimestamp(picture.captured_at, UTC).isoformat(),
        "width": picture.width,
        "height": picture.height,
        "path": None,
    }


def _code(frames: int, count: int) -> str:
    if frames >= count:
        return "complete"
    return "not_enough_frames" if frames else "no_frame"


def _sentence(code: str, frames: int, count: int, samples: int, error: dict[str, str] | None) -> str:
    if code == "complete":
        return f"The {count} brightest of {samples} samples."
    words = f"Not enough frames were captured: {frames} of {count}." if frames else "Not one frame was captured."
    return f"{words} {error['message']}" if error else words


def _write(pictures: list[Picture], result: dict[str, Any], output: Path, folder: Path | None) -> None:
    """The files, and where they are into the result; what cannot be written, too."""
    if not pictures:
        return
    try:
        if grid := _grid(pictures, result):
            whole_file.write(output, grid)
            result["output"] = str(output)
        if folder:
            _write_frames(pictures, result, folder)
    except whole_file.CannotWrite as error:
        result |= {"code": "cannot_write", "message": str(error)}


def _grid(pictures: list[Picture], result: dict[str, Any]) -> bytes:
    """Empty if there is none; why goes into the result."""
    try:
        composed = composer.compose([picture.jpeg for picture in pictures], result["count"])
    except composer.ComposerDied as error:
        result |= {"code": "no_grid", "message": f"No grid can be made of what the camera sent: {error}."}
        return b""
    if not composed.grid:
        result |= {"code": "no_grid", "message": "No grid can be made: not one frame is a picture."}
    elif left_out := len(composed.unreadable):
        result["message"] += f" The grid is without {left_out} of them: no picture."
    return composed.grid


def _write_frames(pictures: list[Picture], result: dict[str, Any], folder: Path) -> None:
    for frame, picture in zip(result["frames"], pictures, strict=True):
        path = folder / f"frame-{frame['rank']:02}.jpg"
        whole_file.write(path, picture.jpeg)
        frame["path"] = str(path)


@contextmanager
def _told_to_end() -> Iterator[Stop]:
    """Set by the first signal; the second one raises KeyboardInterrupt. What nohup ignores stays ignored."""
    stop = Stop()

    def note(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    is_deaf = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    before = {number: signal.signal(number, note) for number in ENDS if number != signal.SIGHUP or not is_deaf}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
