"""LOG_FORMAT=json: each line is one object with the events and keys of the text, from every process."""

import ast
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rtspsite import json_log, logs
from streams.database_faults import FULL
from streams.engine import masking
from streams.locks import Holder
from tests.streams.processes import ROOT, environment, python, settings_with
from tests.streams.test_log_mask import SCRIPT, SECRET, UNKNOWN

LINES = ROOT / "scripts/json_lines.py"
HOLDER = Holder.of(["streams_capture"], 7, "psql", 3)
FIXED = {"time", "level", "logger", "event"}


@pytest.fixture(autouse=True)
def known() -> None:
    masking.remember("admin", [SECRET])


def line(template: object, *args: object, name: str = "streams.x", **more: Any) -> dict[str, Any]:
    record = logs.MaskedRecord(name, logging.INFO, "x.py", 1, template, args, more.pop("exc_info", None), **more)
    text = json_log.JSONLines().format(record)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    assert found.keys() >= FIXED
    return found


def values(template: str, *args: object, **more: Any) -> tuple[str, dict[str, Any]]:
    told = line(template, *args, **more)
    return told["event"], {key: value for key, value in told.items() if key not in FIXED}


@pytest.mark.parametrize(
    ("template", "args", "event", "expected"),
    [
        (
            "stream=%s capture=%s queued interval_s=%g", ("demo", 12, 1.0),
            "queued", {"stream": "demo", "capture": 12, "interval_s": 1},
        ),
        ("stream=%s waits interval_s=%g", ("demo", 0.25), "waits", {"stream": "demo", "interval_s": 0.25}),
        (
            "%s error=%s attempt=%s next_s=%.1f words=%r", ("reconnecting", "stalled", 3, 0.6789, "It's \"so\""),
            "reconnecting", {"error": "stalled", "attempt": 3, "next_s": 0.7, "words": "It's \"so\""},
        ),
        ("capture=%s file=%s unreadable error=no picture", (1, "a.jpg"), "unreadable",
         {"capture": 1, "file": "a.jpg", "error": "no picture"}),
        ("job cluster %s code=%s in_s=%g", ("ended", None, 0.0), "job cluster ended", {"code": None, "in_s": 0}),
        ("capturing codec=%s size=%sx%s", ("h264", 1920, 1080), "capturing", {"codec": "h264", "size": "1920x1080"}),
        ("tick failed", (), "tick failed", {}),
        ("ratio=%.2f of=%s", (float("inf"), 1), "", {"ratio": "inf", "of": 1}),
        ("wrong count=%s %s", (1,), "wrong count=%s %s (1,)", {}),
        ("wrong count=%s", (1, 2), "wrong count=%s (1, 2)", {}),
        ("%d %% level=%s", (50, "x"), "50 % level=x", {}),
        ("level=%s time=%s", ("deep", 5), "", {"level_": "deep", "time_": 5}),
    ],
)  # fmt: skip
def test_keys_are_those_of_the_format_string(
    template: str, args: tuple[object, ...], event: str, expected: dict[str, Any]
) -> None:
    assert values(template, *args) == (event, expected)


@pytest.mark.parametrize(
    "name", ["x capture=7", 'x", "capture": 7, "y": "', "x\ncapture=7", "%s capture=%s", "é\x00="]
)
def test_a_name_adds_no_key(name: str) -> None:
    expected = {"stream": name, "capture": 1}
    assert values("stream=%s capture=%s queued", name, 1) == ("queued", expected)
    assert values("%s failed", name) == (" ".join(f"{name} failed".split()), {})
    assert values(f"{name} failed") == (f"{name} failed", {}), "a message without arguments is not taken apart"


def test_a_line_of_another_library_is_an_event_as_a_whole() -> None:
    assert values("capture=%s %s", 7, "x", name="django.request") == ("capture=7 x", {})
    assert values("with %(word)s", {"word": 1}, name="django_q") == ("with 1", {})


def test_the_time_has_a_zone_and_the_level_its_name() -> None:
    told = line("ready again")
    assert datetime.fromisoformat(told["time"]).utcoffset() == timedelta(0)
    assert (told["level"], told["logger"]) == ("INFO", "streams.x")


def test_secrets_are_masked_in_events_values_and_tracebacks() -> None:
    try:
        raise ValueError(f"no camera, {SECRET} at rtsp://admin:{UNKNOWN}@camera")
    except ValueError:
        told = line(
            "%s error=%s password=%s where=%r", SECRET, f"rtsp://a:{UNKNOWN}@cam", UNKNOWN, {"password": UNKNOWN},
            exc_info=sys.exc_info(), sinfo=f"Stack:\n {SECRET}",
        )  # fmt: skip
    text = json.dumps(told)
    assert UNKNOWN not in text
    assert "m4sk-m3" not in text
    assert told["event"] == "***"
    assert told["error"] == "rtsp://***@cam"
    assert told["password"] == "***"
    assert told["traceback"].splitlines()[-1] == "ValueError: no camera, *** at rtsp://***@camera"
    assert told["stack"] == "Stack:\n ***"


def test_a_value_that_masks_the_rest_of_its_line_leaves_the_others() -> None:
    told = line("error=%s words=%r attempt=%s", "rtsp://x", "Authorization: Basic abc", 2)
    assert (told["error"], told["words"], told["attempt"]) == ("rtsp://x", "Authorization: ***", 2)


def templates() -> list[str]:
    """The format string of each call of a log of ours, and of the supervisor's own function for it."""
    found = []
    for file in (ROOT / "streams").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name("log")), args=[ast.Constant(str(text)), *_]):
                    found.append(text)
                case ast.Call(func=ast.Name("_log"), args=[_, _, ast.Constant(str(text)), *_]):
                    found.append(f"stream=%s capture=%s {text}")
                case ast.Call(func=ast.Attribute(value=ast.Name("log")), args=[ast.BinOp() as sum_of_texts, *_]):
                    found.append(eval(ast.unparse(sum_of_texts), {"holder": HOLDER, "event": FULL.event}))  # noqa: S307
    return found


def test_each_line_of_ours_has_the_keys_of_its_text() -> None:
    all_of_them = templates()
    assert len(all_of_them) > 30
    for template in all_of_them:
        places = re.findall(r"%[.\d]*([a-z])", template)
        args = [1.5 if place in "gf" else number for number, place in enumerate(places)]
        text_keys = re.findall(r"(\w+)=", template)
        told = line(template, *args)
        assert set(told) - FIXED == (set(text_keys) if args else set()), template
        assert "=" not in told["event"] or not args, template


def test_all_that_a_process_says_of_itself_is_such_a_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "rtspsite.settings", SECRET], cwd=ROOT, capture_output=True, text=True,
        timeout=120, env={**environment(tmp_path, LOG_FORMAT="json"), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "m4sk-m3" not in done.stderr + done.stdout
    told = [json.loads(one) for one in done.stderr.splitlines()]
    assert [(one["level"], one["logger"]) for one in told] == [
        ("WARNING", "py.warnings"), ("CRITICAL", "python"), ("CRITICAL", "python"), ("CRITICAL", "python")
    ]  # fmt: skip
    assert told[0]["event"] == "careful with ***"
    assert "ValueError: in del ***" in told[1]["event"]
    assert told[2]["event"].startswith("Exception in thread t: FileNotFoundError")
    assert told[3]["event"] == "RuntimeError: at last ***"
    assert told[3]["traceback"].startswith("Traceback (most recent call last):")


def test_wrong_settings_are_such_a_line_and_another_format_is_one_of_them(tmp_path: Path) -> None:
    done = python("import rtspsite.settings", tmp_path, LOG_FORMAT="json", PORT="abc")
    (told,) = map(json.loads, done.stderr.splitlines())
    assert "PORT" in told["event"]
    (is_taken, said), *others = settings_with(
        tmp_path, "s.LOG_FORMAT", {"LOG_FORMAT": "xml"}, {"LOG_FORMAT": "json"}, {"LOG_FORMAT": "text"}
    )
    assert not is_taken
    assert said.count("LOG_FORMAT") == 1
    assert others == [(True, "json"), (True, "text")]


# --- what makes objects of other programs' lines ------------------------------------------------------------


def made_of(script: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """The objects on standard output and on standard error, and the exit status."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", LINES, "bash", "-c", script], capture_output=True, text=True, timeout=60
    )
    output, errors = ([json.loads(one) for one in text.splitlines()] for text in (done.stdout, done.stderr))
    assert all(one.keys() >= FIXED for one in output + errors)
    return output, errors, done.returncode


def test_other_lines_become_objects_and_objects_stay() -> None:
    mine = '{"time": "t", "level": "INFO", "logger": "l", "event": "mine"}'
    output, errors, status = made_of(
        f"echo 'out \"quoted\"'; echo '{mine}' >&2; echo '<4>serve: it was killed' >&2; echo >&2;"
        "echo 'CommandError: no' >&2; printf 'bad \\xff\\tbyte {' >&2; exit 7"
    )
    assert [one["event"] for one in output] == ['out "quoted"']
    assert [(one["level"], one["logger"], one["event"]) for one in errors] == [
        ("INFO", "l", "mine"),
        ("WARNING", "serve", "it was killed"),
        ("ERROR", "output", "CommandError: no"),
        ("INFO", "output", "bad \ufffd\tbyte {"),
    ]
    assert status == 7


def test_a_traceback_is_one_object_with_its_cause() -> None:
    program = "try:\n 1/0\nexcept Exception as e:\n raise ValueError('so')"
    _, errors, status = made_of(f'{sys.executable} -c "{program}"; echo after >&2; kill -9 $$')
    assert [one["event"] for one in errors] == ["ValueError: so", "after"]
    assert errors[0]["level"] == "ERROR"
    assert "ZeroDivisionError" in errors[0]["traceback"]
    assert status == 128 + signal.SIGKILL


def test_signals_reach_the_command_and_the_reader_may_go_away() -> None:
    script = "trap 'echo last; echo kept >$0; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    reading, writing = os.pipe()
    command = [sys.executable, "-I", "-S", str(LINES), "bash", "-c", script]
    folder = os.environ["TEST_DATA"]
    kept = Path(folder) / f"kept-{os.getpid()}"
    with subprocess.Popen([*command, str(kept)], stdout=writing, stderr=writing) as process:
        os.close(writing)
        with io.FileIO(reading) as reader:
            assert json.loads(reader.read(4096))["event"] == "ready"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 3
    assert kept.read_text() == "kept\n"
    kept.unlink()
