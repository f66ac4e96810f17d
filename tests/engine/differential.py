"""One behaviour of a camera, met by libav and by the engine, each with a camera of its own: what each of them sees.

Nothing is judged by the clock: a decoded picture says by its content which one of the film it is, and the camera
notes which pictures it sent whole.
"""

import functools
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import trustme

from streams.engine.address import parse
from streams.engine.report import Report
from streams.engine.session import Session
from streams.engine.sheet import decode_jpeg
from tests.camera.auth import Scheme
from tests.camera.clip import Scene, encode
from tests.camera.faults import NO_FAULT, Fault
from tests.camera.script import Sent
from tests.camera.server import ScriptedCamera
from tests.camera.tls import TLSFront

from .builders import settings
from .look import Look, look

SCENE = Scene(320, 240, tuple(60.0 + 3 * second for second in range(40)), fps=10, noise=4.0)
INTERVAL_S = 0.5
PLAYED_S = 20.0
"""For so long libav plays; it is killed then."""
LIMIT_S = 60.0
LEAST_SHARE = 0.9
"""Of the due times that libav covers."""
TRANSPORTS = ("tcp", "udp")
ALL = 1000  # places on the leaderboard: each sample stays
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A camera that a user may own. `credentials` are a user name and a password, and then it asks for them."""

    fault: Fault = NO_FAULT
    scene: Scene = SCENE
    credentials: tuple[str, str] | None = None
    scheme: Scheme = "digest"
    forgets_digest: bool = False
    """It asks by Digest until it has hung up for the first time, and by Basic from then on. libav comes later."""
    transports: tuple[str, ...] = TRANSPORTS
    """It is nothing that a camera does by another one."""
    reaches: int = -1
    """The engine has a sample of the picture with this number or of a later one, though libav may play nothing."""
    ciphers: str = ""
    """It speaks TLS 1.2 with these, as OpenSSL names them; empty: no TLS."""
    redirects_to: str = ""
    """The IP address of another camera, which plays."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Numbers of pictures since PLAY, and how often a picture was seen that looks like the one before.

    `due` is how many due times these cover: by pictures, timestamps or arrivals, whichever is least. Timestamps may
    stand still or run at their own pace, and pictures may come faster than they say.
    """

    numbers: frozenset[int] = frozenset()
    stills: int = 0
    due: int = 0

    def __bool__(self) -> bool:
        return bool(self.numbers or self.stills)


@dataclass(frozen=True, slots=True)
class Difference:
    """What libav saw, and the engine of the same camera; `error` is the code that the engine reported last.

    `step` is the number of pictures between two due times. For `reaches` see Behaviour.
    """

    behaviour: str
    transport: str
    libav: Seen
    engine: Seen
    error: str
    step: int
    reaches: int

    @property
    def id(self) -> str:
        return f"{self.behaviour} by {self.transport}"

    @property
    def share(self) -> float:
        """How many of the due times that libav covers the engine covers, too. It chooses when the first one is."""
        met = max(len(self._slots(self.libav, phase) & self._slots(self.engine, phase)) for phase in range(self.step))
        return min(1.0, (met + self.engine.stills) / self.libav.due) if self.libav.due else 1.0

    def _slots(self, seen: Seen, phase: int) -> set[int]:
        return {(number - phase) // self.step for number in seen.numbers}

    @property
    def is_later(self) -> bool:
        """Whether the engine has a sample of libav's last picture or of a later one, or the next was due after it."""
        last = max(self.libav.numbers, default=-1)
        return last < 0 or max(self.engine.numbers, default=-self.step - 1) >= last - self.step

    @property
    def holds(self) -> bool:
        if max(self.engine.numbers, default=-1) < self.reaches:
            return False
        return not self.libav or (self.is_later and self.share >= LEAST_SHARE)

    def __str__(self) -> str:
        last = max(self.libav.numbers, default=None), max(self.engine.numbers, default=None)
        return (
            f"{self.id}: libav saw {len(self.libav.numbers)} pictures, the last {last[0]};"
            f" the engine has {len(self.engine.numbers)} samples, the last {last[1]},"
            f" of {self.share:.0%} of the due times; stills {self.libav.stills} and {self.engine.stills};"
            f" its last error is {self.error or 'none'}"
            + (f"; it has to reach {self.reaches}" if self.reaches >= 0 else "")
        )


def differences(name: str, behaviour: Behaviour, exceptions: Container[str] = ()) -> list[Difference]:
    """By each transport. Where libav plays nothing by TCP, the engine must still do what libav does by UDP.

    The engine has LIMIT_S more than libav. It waits for a silent transport, and learns from a first connection. For
    `exceptions`, behaviours or ids of differences, it is not waited so long.
    """
    step = _step(behaviour.scene)
    encode(behaviour.scene)  # so that no camera waits for its film while another one plays
    with playing(behaviour, "tcp") as tcp, playing(behaviour, "udp") as udp:
        libav = {"tcp": tcp, "udp": udp}
        with sampling(behaviour, "tcp") as by_tcp, sampling(behaviour, "udp") as by_udp:
            engines = {"tcp": by_tcp, "udp": by_udp}
            deadline_s = time.monotonic() + PLAYED_S
            _wait_until(lambda: all(player.has_ended for player in libav.values()), deadline_s)
            for player in libav.values():
                player.kill()
            seen = {transport: player.seen() for transport, player in libav.items()}

            def found() -> list[Difference]:
                wanted = {"tcp": seen["tcp"] or seen["udp"], "udp": seen["udp"]}
                return [
                    Difference(
                        name, transport, wanted[transport], engine.seen(), engine.error, step, behaviour.reaches
                    )
                    for transport, engine in engines.items()
                    if transport in behaviour.transports
                ]

            def is_done() -> bool:
                return all(one.holds for one in found() if name not in exceptions and one.id not in exceptions)

            _wait_until(is_done, time.monotonic() + LIMIT_S)
            return found()


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture that libav decoded; `shown_s` is its timestamp, `decoded_s` the clock's, both from any moment."""

    look: Look
    shown_s: float
    decoded_s: float

    @classmethod
    def of(cls, line: str) -> "Decoded | None":
        """None: the picture could not be told."""
        words = line.split()
        if len(words) != 4:
            return None
        return cls((int(words[2]), int(words[3])), float(words[0]), float(words[1]))


class LibavPlayer:
    """A process that plays the camera's stream; `seen` can be asked for at any time."""

    def __init__(self, camera: ScriptedCamera, url: str, transport: str) -> None:
        self._camera = camera
        self._lines: list[str] = []
        command = [sys.executable, "-m", "tests.engine.libav_player", url, transport, str(camera.clip.scene.fps)]
        self._process = subprocess.Popen(
            command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()

    def seen(self) -> Seen:
        """Of the pictures that were sent whole, as all were since their key frame."""
        sent = self._camera.sent
        stills, numbers, clean = _stills(sent), _numbers(sent), _clean(sent)
        decoded = [Decoded.of(line) for line in self._lines]
        found = [one for one in decoded if one and numbers.get(one.look) in clean]
        moving = frozenset(numbers[one.look] for one in found if one.look not in stills)
        still = sum(one.look in stills for one in found)
        due = min(
            len({number // _step(self._camera.clip.scene) for number in moving}) + still,
            len({round(one.shown_s // INTERVAL_S) for one in found}),
            len({round(one.decoded_s // INTERVAL_S) for one in found}),
        )
        return Seen(moving, still, due)

    def _read(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            self._lines.extend(line.strip() for line in lines)


@dataclass
class EngineSampler:
    """A session in a thread of its own."""

    camera: ScriptedCamera
    session: Session
    _looks: dict[int, Look | None] = field(default_factory=dict)
    _errors: list[str] = field(default_factory=list)

    @property
    def error(self) -> str:
        return self._errors[-1] if self._errors else ""

    def note(self) -> None:
        code = self.session.report().status.error_code
        if code:
            self._errors.append(code)

    def seen(self) -> Seen:
        report = self.session.report()
        sent = self.camera.sent
        numbers = _numbers(sent)
        looks = [seen for seen in self._looks_of(report) if seen in numbers]
        stills = _stills(sent)
        moving = frozenset(numbers[seen] for seen in looks if seen not in stills)
        still = sum(seen in stills for seen in looks) + report.counters.repeated
        return Seen(moving, still if stills else 0)

    def _looks_of(self, report: Report) -> Iterator[Look]:
        for picture in report.fresh:
            if picture.number not in self._looks:
                grey = np.asarray(cv2.cvtColor(decode_jpeg(picture.jpeg), cv2.COLOR_BGR2GRAY), np.uint8)
                self._looks[picture.number] = look(grey, self.camera.clip.scene)
            if seen := self._looks[picture.number]:
                yield seen


@contextmanager
def filming(behaviour: Behaviour) -> Iterator[tuple[ScriptedCamera, str]]:
    """The camera that plays, and the address to ask, with credentials."""
    username, password = behaviour.credentials or (None, None)
    with ScriptedCamera(
        behaviour.scene, fault=behaviour.fault, username=username, password=password, auth=behaviour.scheme
    ) as camera:
        url = camera.url_with_credentials if behaviour.credentials else camera.url
        if behaviour.ciphers:
            with TLSFront(camera.port, _tls(behaviour.ciphers)) as front:
                yield camera, f"rtsps://127.0.0.1:{front.port}/demo"
            return
        if not behaviour.redirects_to:
            yield camera, url
            return
        with ScriptedCamera(behaviour.scene, host=behaviour.redirects_to) as other:
            camera.fault = f"redirect:{other.url}"
            yield other, url


@contextmanager
def playing(behaviour: Behaviour, transport: str) -> Iterator[LibavPlayer]:
    with filming(behaviour) as (camera, url):
        if behaviour.forgets_digest and behaviour.credentials:
            camera.ask_for(*behaviour.credentials, auth="basic")
        player = LibavPlayer(camera, url, transport)
        try:
            yield player
        finally:
            player.kill()


@contextmanager
def sampling(behaviour: Behaviour, transport: str) -> Iterator[EngineSampler]:
    """Raises AssertionError where the session does not end when it is told to."""
    with filming(behaviour) as (camera, url):
        wanted = settings(parse(url), interval_s=INTERVAL_S, count=ALL, transport=transport)
        session = Session(replace(wanted, verify_certificate=False), on_change=lambda: sampler.note())
        sampler = EngineSampler(camera, session)
        thread = threading.Thread(target=session.run, name="session", daemon=True)
        thread.start()
        try:
            if behaviour.forgets_digest and behaviour.credentials:
                _wait_until(lambda: bool(camera.sent), time.monotonic() + LIMIT_S)
                camera.ask_for(*behaviour.credentials, auth="basic")
                camera.hang_up()
            yield sampler
        finally:
            session.stop.set()
            thread.join(LIMIT_S)
            assert not thread.is_alive(), "the session does not stop"


@functools.cache
def _tls(ciphers: str) -> ssl.SSLContext:
    """With a certificate of an authority that nobody knows; its key is RSA's, which old ciphers need."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    trustme.CA().issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA).configure_cert(context)
    return context


def _step(scene: Scene) -> int:
    return max(1, round(INTERVAL_S * scene.fps))


def _look_of(sent: Sent) -> Look:
    return sent.width_px, sent.index


def _numbers(sent: list[Sent]) -> Mapping[Look, int]:
    """Of a picture that was sent several times, the first number."""
    numbers: dict[Look, int] = {}
    for one in sent:
        numbers.setdefault(_look_of(one), one.number)
    return numbers


def _stills(sent: list[Sent]) -> frozenset[Look]:
    """Looks of a film in which nothing moves: two pictures in a row are the same."""
    return frozenset(
        _look_of(after)
        for before, after in pairwise(sent)
        if (before.connection, _look_of(before)) == (after.connection, _look_of(after))
    )


def _clean(sent: list[Sent]) -> frozenset[int]:
    """Pictures that were sent whole, as all were on that connection from their key frame on."""
    clean, whole = set(), set()
    for one in sent:
        if not one.is_whole:
            whole.discard(one.connection)
        elif one.is_key:
            whole.add(one.connection)
        if one.connection in whole:
            clean.add(one.number)
    return frozenset(clean)


def _wait_until(holds: Callable[[], bool], deadline_s: float) -> None:
    """Returns at the deadline at the latest: what is there then is judged."""
    while not holds() and time.monotonic() < deadline_s:
        time.sleep(0.1)
