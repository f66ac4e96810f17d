"""Clients that start and stop captures all the time and remember each answer; and what has to be true of these.

with Clients(site.website, urls, seed) as clients:
    ...
check_answers(clients.answers, rows, site.media)
"""

import base64
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from streams.engine import sheet
from tests.e2e.rows import Rows
from tests.e2e.service import Calls

CLIENTS = 4
COUNT = 3
INTERVAL_S = 0.25
ANSWER_S = 60.0
AGAIN_S = 0.1
END_OF_JPEG = b"\xff\xd9"
# Too few frames are a right answer to a /stop: they are shown and kept.
STARTED, STOPPED = (200, 201), (200, 409)


@dataclass(frozen=True, slots=True)
class Answer:
    """`path` /start or /stop, or a page's; `at`: seconds since 1970 UTC at which it was asked for."""

    path: str
    at: float
    took_s: float
    status: int
    body: dict[str, Any] = field(repr=False)

    @property
    def code(self) -> str:
        """What the answer says of itself; /start says nothing if it did what it was asked for."""
        return str(self.body.get("code", ""))

    @property
    def capture(self) -> int:
        return int(self.body["capture"])


class Clients:
    """`answers` are of all of them; `failures`: requests that had no answer within ANSWER_S, or a broken one.

    With `is_patient` each waits for a sample of what it has started before it stops it, for as long as it takes;
    without, it stops it whenever it likes.
    """

    def __init__(self, website: Calls, urls: Sequence[str], seed: int, *, is_patient: bool = False) -> None:
        """The last path segments of the `urls` are the streams' names. Any client may ask for any of them."""
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self._website = website
        self._urls = urls
        self._is_patient = is_patient
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=[number, random.Random(seed + number)], daemon=True)
            for number in range(CLIENTS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(2 * ANSWER_S)
        if error is not None:
            print(self.tally(), *self.failures, sep="\n")

    def tally(self) -> Counter[str]:
        return Counter(f"{answer.path} {answer.status} {answer.code}".strip() for answer in self.answers)

    def _run(self, number: int, chance: random.Random) -> None:
        # The patient ones have streams of their own: nobody else stops what they wait for.
        urls = self._urls[number::CLIENTS] if self._is_patient else self._urls
        try:
            while not self._is_over.is_set():
                self._start_and_stop(chance.choice(urls), chance)
        except Exception as error:
            self.failures.append(f"client {number}: {type(error).__name__}: {error}")

    def _start_and_stop(self, url: str, chance: random.Random) -> None:
        started = self._ask("/start", rtsp_url=url, count=COUNT, interval=INTERVAL_S)
        if self._is_patient and started.status in STARTED:
            self._wait_for_sample(started.capture)
        else:
            self._is_over.wait(chance.uniform(0.0, 3.0))
        self._ask("/stop", process_name=url.rpartition("/")[2])

    def _wait_for_sample(self, capture: int) -> None:
        limit_s = time.monotonic() + ANSWER_S
        while True:
            answer = self._answer("GET", f"/captures/{capture}/", {})
            if answer.status == 200 and answer.body["samples"]:
                return
            if time.monotonic() > limit_s:
                raise AssertionError(f"capture {capture} has no sample within {ANSWER_S:g} s: {answer.body}")
            time.sleep(AGAIN_S)

    def _ask(self, path: str, **fields: Any) -> Answer:
        answer = self._answer("POST", path, fields)
        self.answers.append(answer)
        return answer

    def _answer(self, method: str, path: str, fields: dict[str, Any]) -> Answer:
        """Asked again if the website was killed meanwhile: a client cannot know whether it was heard."""
        limit_s = time.monotonic() + ANSWER_S
        while True:
            at, began_s = time.time(), time.monotonic()
            try:
                response = requests.request(
                    method, self._website.url + path, data=fields, headers={"Accept": "application/json"},
                    timeout=ANSWER_S,
                )  # fmt: skip
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                if time.monotonic() > limit_s:
                    raise
                time.sleep(AGAIN_S)
                continue
            is_json = response.headers.get("Content-Type", "").startswith("application/json")
            body = response.json() if is_json else {"text": response.text}
            return Answer(path, at, time.monotonic() - began_s, response.status_code, body)


def unexpected(answers: Iterable[Answer], *also: tuple[int, str]) -> list[Answer]:
    """Answers to /start and /stop that are wrong while all that the website needs is there, and not among `also`."""
    right = {
        "/start": {(200, ""), (201, ""), (409, "stopping")},
        "/stop": {(200, "complete"), (409, "not_enough_frames"), (202, "stopping"), (404, "unknown_process")},
    }
    return [answer for answer in answers if (answer.status, answer.code) not in {*right[answer.path], *also}]


def check_answers(answers: Iterable[Answer], rows: Rows, media: Path) -> int:
    """What a /stop was answered with is what is kept; how many of the answers had a grid."""
    kept = {
        capture: (finished_at, grid)
        for capture, finished_at, grid in rows.read("SELECT id, finished_at, grid FROM streams_capture")
    }
    frames = rows.frames()
    grids = 0
    for answer in answers:
        if answer.path != "/stop" or answer.status not in STOPPED:
            continue
        finished_at, grid = kept[answer.capture]
        scores = sorted(
            (round(frame.score, 3) for frame in frames if frame.capture_id == answer.capture), reverse=True
        )
        assert finished_at, answer
        assert [frame["score"] for frame in answer.body["frames"]] == scores, answer
        assert (answer.status == 200) == (len(scores) == COUNT), answer
        assert bool(grid) == bool(scores), answer
        if grid:
            shown = base64.b64decode(answer.body["grid"].partition(",")[2])
            assert shown == (media / grid).read_bytes(), answer
            grids += 1
    return grids


def check_files(rows: Rows, media: Path) -> int:
    """Each row has its whole file and each file its row; how many there are."""
    named = {frame.image for frame in rows.frames()} | {row.grid for row in rows.captures().values() if row.grid}
    there = {str(path.relative_to(media)) for path in media.rglob("*") if path.is_file()}
    assert named - there == set(), "rows without their file"
    assert there - named == set(), "files without their row"
    for name in there:
        data = (media / name).read_bytes()
        sheet.decode_jpeg(data)
        assert data.endswith(END_OF_JPEG), name
    return len(there)
