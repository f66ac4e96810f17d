"""The running service from the command line: what there is, start, stop. By the database, as the website does it."""

import argparse
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError

from streams import database, database_faults, given_address, outcomes, queries, services, whole_file
from streams.engine.address import Address
from streams.engine.errors import AddressRefused
from streams.exits import Exit
from streams.forms import ChangeForm, mistakes
from streams.models import Capture, CaptureSettings, Status, Stream
from streams.queries import Card
from streams.terminal import mention, say, within

Mistakes = dict[str, dict[str, str]]

DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S = 60.0, 86_400.0
HEAD = ("NAME", "STATUS", "SAMPLES", "UPTIME", "ERROR")
SETTINGS = ("interval", "count", "name", "transport", "verify_certificate")

EPILOG = f"""\
Without a word it lists. Each of the four has a --help of its own and takes --json.

exit codes:
  {Exit.DONE} done
  {Exit.FAILED} the database is away or not migrated, or a fault of this program
  {Exit.USAGE} wrong arguments, settings or address
  {Exit.NOT_ENOUGH_FRAMES} stop --wait: fewer frames than asked for
  {Exit.NO_FRAME} stop --wait: not one frame
  {Exit.CANNOT_WRITE} stop --output: the grid cannot be written where it should
  {Exit.UNKNOWN} no stream of that name, or it has no capture
  {Exit.REFUSED} start: running with other settings, being stopped, or the name or address is another stream's
  {Exit.NOT_YET} stop --wait: not finished within the time; it is stopped all the same
  {Exit.KILLED} ended by Ctrl-C; what was begun goes on
"""


class Failure(Exception):
    """What ends the command: a sentence, and a code for whoever reads JSON."""

    def __init__(
        self, exit_code: Exit, code: str, words: str, fields: dict[str, dict[str, str]] | None = None
    ) -> None:
        super().__init__(words)
        self.exit_code = exit_code
        self.code = code
        self.fields = fields or {}


class Command(BaseCommand):
    help = "Lists, shows, starts and stops streams of the running service."
    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        options |= {"epilog": EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
        return super().create_parser(prog_name, subcommand, **options)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="answer as JSON")
        actions = parser.add_subparsers(dest="action", metavar="list|show|start|stop")
        actions.add_parser("list", help="all streams (the default)").set_defaults(do=self._list)
        parser.set_defaults(do=self._list)
        self._add_show(actions)
        self._add_start(actions)
        self._add_stop(actions)
        for action in actions.choices.values():  # after the action's name, too
            action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer as JSON")

    def _add_show(self, actions: Any) -> None:
        show = actions.add_parser("show", help="one stream: settings, latest capture, frames")
        show.add_argument("name")
        show.set_defaults(do=self._show)

    def _add_start(self, actions: Any) -> None:
        start = actions.add_parser(
            "start",
            help="have a stream captured",
            description="The address may be '-': the first line of standard input, which no list of processes shows.",
        )
        start.add_argument("stream", metavar="ADDRESS|NAME", help="an RTSP address, or the name of a known stream")
        start.add_argument("--interval", metavar="S", help="seconds from one sample to the next; 1, or as stored")
        start.add_argument("--count", metavar="N", help="frames to keep; 9, or as stored")
        start.add_argument("--name", help="what a new stream is called; else the last part of its address")
        start.add_argument("--transport", metavar="tcp|udp", help="tcp, or as stored")
        start.add_argument("--username", metavar="NAME", help="for the camera, if the address has none")
        start.add_argument(
            "--password-stdin",
            action="store_true",
            help=f"read the password from standard input; or set {given_address.PASSWORD_VARIABLE}",
        )
        start.add_argument(
            "--verify-certificate", action=argparse.BooleanOptionalAction,
            help="verify the certificate of an rtsps:// camera, or accept any; verified, or as stored",
        )  # fmt: skip
        start.set_defaults(do=self._start)

    def _add_stop(self, actions: Any) -> None:
        stop = actions.add_parser("stop", help="end captures")
        stop.add_argument("names", nargs="*", metavar="NAME")
        stop.add_argument("--all", action="store_true", help="every capture in progress")
        stop.add_argument("--wait", action="store_true", help="until the grid is made")
        stop.add_argument(
            "--timeout", type=within(0, MAX_TIMEOUT_S, float, "seconds"), default=DEFAULT_TIMEOUT_S, metavar="S",
            help="of --wait (%(default)g)",
        )  # fmt: skip
        stop.add_argument("--output", type=Path, metavar="FILE", help="write the grid there; waits for it")
        stop.set_defaults(do=self._stop)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with _without_log(options["verbosity"]):
                code = options["do"](options)
        except Failure as failure:
            if options["json"]:
                self._print({"code": failure.code, "message": str(failure), "fields": failure.fields})
            raise CommandError(f"{failure} ({failure.code})", returncode=failure.exit_code) from None
        except DatabaseError as error:
            raise CommandError(database_faults.sentence(error)) from None
        except KeyboardInterrupt:
            raise CommandError("Ended at once. What was begun goes on.", returncode=Exit.KILLED) from None
        if code:
            raise SystemExit(int(code))

    # --- reading ---

    def _list(self, options: dict[str, Any]) -> Exit:
        cards = queries.cards(queries.all_streams())
        if options["json"]:
            self._print([_data(card) for card in cards])
        elif cards:
            for line in table([HEAD, *(_row(card) for card in cards)]):
                say(self.stdout, line)
        else:
            say(self.stdout, "There is no stream yet.")
        self._say_if_nobody_captures()
        return Exit.DONE

    def _show(self, options: dict[str, Any]) -> Exit:
        stream = _stream(options["name"])
        capture = queries.latest_capture(stream)
        data = _data(Card(stream, capture, None))
        if capture:
            result = outcomes.result_data(capture, list(queries.ranked_frames(capture)))
            data["latest"] = {name: value for name, value in result.items() if name != "grid"}
        if options["json"]:
            self._print(data)
        else:
            for line in _described(stream, capture, data):
                say(self.stdout, line)
        self._say_if_nobody_captures()
        return Exit.DONE

    # --- writing ---

    def _start(self, options: dict[str, Any]) -> Exit:
        try:
            started = _started(options)
        except services.Refused as error:
            fields = {error.field: {"code": error.code, "message": str(error)}}
            raise Failure(Exit.REFUSED, error.code, str(error), fields) from None
        except AddressRefused as error:
            raise Failure(Exit.USAGE, error.code, str(error)) from None
        data = outcomes.started_data(started)
        if options["json"]:
            self._print(data)
        else:
            say(self.stdout, _started_line(data))
            if data["waits_for"]:
                mention(self.stderr, outcomes.why_not_yet(data["slots"], data["waits_for"]))
        self._say_if_nobody_captures()
        return Exit.DONE

    def _stop(self, options: dict[str, Any]) -> Exit:
        names, output = options["names"], options["output"]
        if bool(names) == options["all"]:
            raise Failure(Exit.USAGE, "missing", "Name the streams to stop, or give --all.")
        if output:
            _check_output(output, names)
        streams = queries.streams_in_progress() if options["all"] else [_stream(name) for name in names]
        captures = [_stopped(stream) for stream in streams]
        self._say_if_nobody_captures()
        if options["wait"] or output:
            captures = _finished(captures, options["timeout"])
        results = [_result(capture) for capture in captures]
        self._tell_stopped(results, options)
        if output and captures[0].grid:
            _write_grid(captures[0], output)
        waits = options["wait"] or output
        return max((_exit_code(result) for result in results), default=Exit.DONE) if waits else Exit.DONE

    def _tell_stopped(self, results: list[dict[str, Any]], options: dict[str, Any]) -> None:
        if options["json"]:
            self._print(results if options["all"] or len(results) != 1 else results[0])
            return
        for result in results:
            say(self.stdout, f"{result['process_name']}: {result['message']}")
        if not results:
            say(self.stdout, "Nothing is being captured.")

    def _say_if_nobody_captures(self) -> None:
        if not queries.has_living_host():
            mention(self.stderr, "No supervisor is running: nothing is captured until one is.")

    def _print(self, data: object) -> None:
        say(self.stdout, json.dumps(data, indent=2, cls=DjangoJSONEncoder))


# --- what is asked for ------------------------------------------------------------------------------


def _stream(name: str) -> Stream:
    """With `latest_id`."""
    stream = queries.streams_with_latest().filter(name=name).first()
    if stream is None:
        raise Failure(Exit.UNKNOWN, "unknown_process", f"No stream is called {name!r}.")
    return stream


def _started(options: dict[str, Any]) -> services.Started:
    if "://" in options["stream"] or options["stream"] == given_address.FROM_STDIN:
        address = _address(options)
        return services.start(_change(options).applied(services.Wish(address)))
    stream, change = _stream(options["stream"]), _change(options)
    if options["username"] is not None or options["password_stdin"]:
        change = replace(change, username=options["username"], password=_password(options))
    return services.start_again(stream, change)


def _address(options: dict[str, Any]) -> Address:
    try:
        return given_address.read(
            options["stream"],
            username=options["username"],
            is_password_on_stdin=options["password_stdin"],
            networks=settings.CAPTURE_ALLOWED_NETWORKS,
        )
    except given_address.BadAddress as error:
        fields = {"rtsp_url": {"code": error.code, "message": str(error)}}
        raise Failure(Exit.USAGE, error.code, str(error), fields) from None


def _password(options: dict[str, Any]) -> str | None:
    try:
        return given_address.read_password(options["password_stdin"])
    except given_address.BadAddress as error:
        raise Failure(Exit.USAGE, error.code, str(error)) from None


def _change(options: dict[str, Any]) -> services.Change:
    """The settings, checked as /start checks them, with the same sentences."""
    form = ChangeForm({name: options[name] for name in SETTINGS if options[name] is not None})
    if not form.is_valid():
        found = mistakes(form)
        words = " ".join(mistake["message"] for mistake in found.values())
        raise Failure(Exit.USAGE, next(iter(found.values()))["code"], words, found)
    return form.change()


def _check_output(output: Path, names: Sequence[str]) -> None:
    if len(names) != 1:
        raise Failure(Exit.USAGE, "missing", "--output needs the name of one stream.")
    try:
        whole_file.check(output)
    except whole_file.CannotWrite as error:
        raise Failure(Exit.CANNOT_WRITE, "cannot_write", str(error)) from None


def _stopped(stream: Stream) -> Capture:
    capture = services.stop(stream)
    if capture is None:
        raise Failure(Exit.UNKNOWN, "no_capture", f"{stream.name} has no capture: none was made, or all were pruned.")
    capture.refresh_from_db()
    return capture


def _finished(captures: Sequence[Capture], timeout_s: float) -> list[Capture]:
    """As they are then; one that was pruned meanwhile as it was."""
    limit_s = time.monotonic() + timeout_s
    return [
        outcomes.wait_until_finished(capture, max(0.0, limit_s - time.monotonic())) or capture for capture in captures
    ]


def _write_grid(capture: Capture, output: Path) -> None:
    try:
        with capture.grid.open() as file:
            whole_file.write(output, file.read())
    except whole_file.CannotWrite as error:
        raise Failure(Exit.CANNOT_WRITE, "cannot_write", str(error)) from None
    except OSError as error:
        raise Failure(Exit.FAILED, "storage", f"The grid cannot be read: {error.strerror or error}.") from None


# --- what is told -----------------------------------------------------------------------------------


def _data(card: Card) -> dict[str, Any]:
    stream, capture = card.stream, card.capture
    settings = _settings(stream, capture)
    return {
        "process_name": stream.name,
        "status": stream.status,
        "url": stream.url,
        "interval": settings.interval_s,
        "count": settings.count,
        "transport": settings.transport,
        "verify_certificate": stream.verify_certificate,
        "capture": capture and capture.pk,
        "samples": capture.samples if capture else 0,
        "uptime_s": _uptime_s(capture),
        "error": {"code": stream.error_code, "message": stream.error_text} if stream.error_code else None,
        "next_attempt_at": stream.next_attempt_at,
        "notices": stream.notice_sentences,
    }


def _settings(stream: Stream, capture: Capture | None) -> CaptureSettings:
    """The running capture's own, or else the stream's."""
    return stream if capture is None or capture.is_finished else capture


def _result(capture: Capture) -> dict[str, Any]:
    result = outcomes.result_data(capture, list(queries.ranked_frames(capture)))
    del result["grid"]
    return result


def _exit_code(result: dict[str, Any]) -> Exit:
    if result["code"] == "complete":
        return Exit.DONE
    if result["code"] != "not_enough_frames":
        return Exit.NOT_YET
    return Exit.NOT_ENOUGH_FRAMES if result["frames"] else Exit.NO_FRAME


def _row(card: Card) -> tuple[str, ...]:
    samples = str(card.capture.samples) if card.capture else "-"
    return (card.stream.name, card.stream.status, samples, _running(card.capture), _trouble(card.stream))


def _trouble(stream: Stream) -> str:
    """The error with what comes next; while it captures what there is to be said. An old error is told by `show`."""
    if stream.status == Status.CAPTURING or not stream.error_code:
        return stream.notices or "-"
    return f"{stream.error_code}, again in {_wait_s(stream):.0f} s" if stream.next_attempt_at else stream.error_code


def _wait_s(stream: Stream) -> float:
    return max(0.0, (stream.next_attempt_at - database.now()).total_seconds()) if stream.next_attempt_at else 0.0


def _uptime_s(capture: Capture | None) -> float | None:
    """None before the first sample: what never captured is not up."""
    return _age_s(capture) if capture and capture.samples else None


def _age_s(capture: Capture | None) -> float | None:
    """Seconds since the start of a capture in progress."""
    if capture is None or capture.is_finished:
        return None
    return round((database.now() - capture.started_at).total_seconds(), 1)


def _running(capture: Capture | None) -> str:
    """For how long; before the first sample when it was started."""
    if capture is None or capture.is_finished or capture.samples:
        return uptime(_uptime_s(capture))
    return f"started {uptime(_age_s(capture))} ago"


def uptime(seconds: float | None) -> str:
    """1:02:03, with days before it once there are some."""
    if seconds is None:
        return "-"
    minutes, second = divmod(max(0, int(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{f'{days} d ' if days else ''}{hour}:{minute:02}:{second:02}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, two spaces between; figures are on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    is_figure = [all(cell == "-" or cell[:1].isdigit() for cell in column[1:]) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, is_figure, strict=True)
        lines.append("  ".join(c.rjust(w) if right else c.ljust(w) for c, w, right in cells).rstrip())
    return lines


def _started_line(data: dict[str, Any]) -> str:
    settings = f"interval={data['interval']:g} count={data['count']} status={data['status']}"
    return f"{data['message']}: process_name={data['process_name']} {settings}"


def _described(stream: Stream, capture: Capture | None, data: dict[str, Any]) -> Iterator[str]:
    facts = {
        "name": stream.name,
        "url": stream.url,
        "status": stream.status,
        "settings": f"every {data['interval']:g} s, {data['count']} frames, {data['transport']}"
        f"{'' if stream.verify_certificate else ', certificate not verified'}",
        "last error": stream.error_code and f"{stream.error_code}: {stream.error_text}",
        "again": f"in {_wait_s(stream):.0f} s, attempt {stream.attempt}" if stream.next_attempt_at else "",
        "notices": " ".join(stream.notice_words),
    }
    if capture:
        facts["capture"] = f"#{capture.pk}, {data['latest']['message']}"
        facts["uptime"] = _running(capture)
        facts["samples"] = (
            f"{capture.samples} (repeated {capture.repeated}), missed {capture.missed}, damaged {capture.rejected}"
        )
        facts["connections"] = str(capture.connections)
        scores = [f"{frame['score']:.1f}" for frame in data["latest"]["frames"]]
        facts["frames"] = f"{len(scores)} of {capture.count}{': ' if scores else ''}{' '.join(scores)}"
    width = max(map(len, facts))
    return (f"{name:{width}}  {value}" for name, value in facts.items() if value and value != "-")


@contextmanager
def _without_log(verbosity: int) -> Iterator[None]:
    """What is done here is told by the answer; with -v 2 by the log, too."""
    log = logging.getLogger("streams")
    level = log.level
    if verbosity < 2:
        log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
