"""One capture: connect, sample, score, keep, reconnect, until told to stop."""

import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

from . import deadlines, errors
from .backoff import Backoff, longest_wait_s
from .clock import Clock, Stop, Stopped, SystemClock
from .continuity import Rule, Watch, continuity
from .conversion import encode_frame
from .copies import Copies
from .dialogue import Caution
from .errors import CaptureError, OutOfMemory, Retry, TransportRefused, Unreachable
from .feed import Feed, Opener, Packet, open_feed
from .leaderboard import Leaderboard
from .notices import Notice
from .quirks import Quirks
from .report import Counters, Picture, Report, Seed, Settings, State, Status, Video
from .sampler import Counts, Sample, Sampler
from .scoring import brightness, fingerprint
from .timeline import Timeline
from .wire import picture_bytes

# The feed keeps its own limits (deadlines.py, feed.py). These are for a thread that hangs inside C code all the same.
# The look-up of a name has no limit of its own: glibc asks three servers twice, 5 s each.
RESOLVE_S = 30.0
OPEN_S = RESOLVE_S + deadlines.OPENING_S + deadlines.FIRST_PICTURE_S
# Beyond what the feed says that it waits for a picture: its reading is a second behind, and a machine may be busy.
HANG_S = 3.0
# One picture. 8K of H.265 takes half a second.
DECODE_S = 15.0
CLOSE_S = 5.0
# A sample was due and nothing clean could be decoded for so long, or for as long as the feed waits for a picture.
FRAME_S = 30.0
# The same as long as no key frame has come: smart codecs send one in 48 s (1200 pictures) at the worst.
KEY_FRAME_S = 120.0
# The timeline is said again when it has grown by a quarter, within these limits: somebody may watch the first minute.
TIMELINE_S = (2.0, 10.0)
TIMELINE_GROWTH = 1 / 4
# A name that this recorder has resolved before and now cannot: another recorder tries. What a process knows of name
# servers and modules can be out of date in ways that only a new process is rid of.
UNRESOLVED_S = 60.0
# Samples whose lateness is remembered.
REMEMBERED = 1000
OTHER = {"tcp": "udp", "udp": "tcp"}
RULE_NOTICES = {Rule.FRAME_NUM: Notice.FRAME_NUM_OFF, Rule.SLICES: Notice.SLICES_OFF}


class Session:
    """Runs in a thread of its own; `report`, `mark_saved` and `overdue` are for another one."""

    def __init__(
        self,
        settings: Settings,
        seed: Seed | None = None,
        *,
        opener: Opener | None = None,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
        on_change: Callable[[], None] = lambda: None,
        replaced_file: Callable[[], str] = str,
    ) -> None:
        """`replaced_file`: a file for the look-up that was replaced and is closed to this process; empty: none."""
        self.settings = settings
        self.stop = Stop()
        seed = seed or Seed()
        self._quirks = Quirks.decode(seed.quirks)
        self._open = opener or _opener(settings, self._quirks)
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff()
        self._on_change = on_change
        self._replaced_file = replaced_file
        self._has_resolved = False
        self._unresolved_since_s: float | None = None
        self._replace_reason = ""
        self._lock = threading.Lock()
        # A picture leaves memory once it is saved: nine of 1080p are 4 MB.
        self._board: Leaderboard[Picture | None] = Leaderboard(
            settings.count, ((number, score, None) for number, score in seed.board)
        )
        self._copies = Copies(seed.board)
        self._transport = self._quirks.transport or settings.transport
        self._refusals: dict[str, TransportRefused] = {}
        """Of each transport, since something came."""
        self._number = seed.samples
        self._status = self._resumed(seed.status)
        self._counts = Counts()
        self._received_before = 0
        """Pictures that had come when the last error was reported."""
        self._has_begun = False
        self._samples = 0
        self._repeated = 0
        self._connections = 0
        self._late_s: deque[float] = deque(maxlen=REMEMBERED)
        self._last_sample_at: float | None = None
        self._healthy_since_s: float | None = None
        self.is_heavy = False
        """Whether it takes so much work that it goes behind all others; whoever measures that says so."""
        self._deadline: tuple[float, CaptureError] | None = None
        self._timeline = _timeline_of(seed, settings.interval_s, self._clock.now())
        self._told_events = self._timeline.events
        self._began_s = self._told_timeline_s = self._clock.monotonic()

    def run(self) -> None:
        """Capture until `stop` is set, an error comes that is never to be retried, or another recorder has to."""
        self._wait_on(self._status)
        while not self.stop.is_set() and not self._has_to_give_way():
            try:
                self._connect()
            except Stopped:
                return
            except OutOfMemory:  # whatever holds it: it is given back by ending
                raise
            except TransportRefused as error:
                self._note_lookup(error)
                self._turn(error)
            except CaptureError as error:
                self._note_lookup(error)
                if error.retry is Retry.NEVER:
                    self._set(Status(State.FAILED, error.code, str(error)))
                    return
                if self._refusals:  # whether the other transport works was not seen
                    self._forget_transport()
                self._pause(error)

    def report(self, *, is_final: bool = False) -> Report:
        """What has been captured; any thread may ask."""
        with self._lock:
            ranking = self._board.ranking()
            return Report(
                status=self._last_status() if is_final else self._status,
                counters=self._counters(),
                board=tuple((number, score) for number, score, _ in ranking),
                fresh=tuple(picture for _, _, picture in ranking if picture),
                is_final=is_final,
                timeline=self._timeline.encode() if self._is_timeline_due() or is_final else "",
                quirks=self._quirks.encode(),
                replace_reason=self._replace_reason if is_final else "",
            )

    def _is_timeline_due(self) -> bool:
        now_s = self._clock.monotonic()
        least_s, most_s = TIMELINE_S
        wait_s = min(max(least_s, TIMELINE_GROWTH * (now_s - self._began_s)), most_s)
        if now_s - self._told_timeline_s < wait_s or self._timeline.events == self._told_events:
            return False
        self._told_timeline_s, self._told_events = now_s, self._timeline.events
        return True

    def mark_saved(self, numbers: frozenset[int]) -> None:
        """These pictures lie safe elsewhere: keep their places, forget their bytes."""
        with self._lock:
            for number in numbers:
                self._board.replace(number, None)

    def overdue(self) -> CaptureError | None:
        """What is wrong if the session's thread hangs inside C code, past every limit that libav keeps itself."""
        deadline = self._deadline
        if deadline is None or self._clock.monotonic() < deadline[0]:
            return None
        return deadline[1]

    def fail(self, error: CaptureError) -> None:
        """Say in the status why this recorder ends; of what is not to be tried again soon, also when it will be."""
        if error.retry is Retry.SLOW:
            self._put_off(error)
        else:
            self._set(Status(State.RECONNECTING, error.code, str(error), self._backoff.attempt + 1))

    def _has_to_give_way(self) -> bool:
        """Whether another recorder can look up what this one cannot. Its first attempt is made at once."""
        if path := self._replaced_file():
            self._replace_reason = f"{path} was replaced"
        if self._replace_reason:
            self._set(replace(self._status, next_attempt_at=None))
        return bool(self._replace_reason)

    def _note_lookup(self, error: CaptureError | None = None) -> None:
        """Of a connection, with the error that it ended in if it did not come as far as that."""
        if not (isinstance(error, Unreachable) and error.is_unresolved):
            self._has_resolved, self._unresolved_since_s = True, None
        elif self._has_resolved and self._unresolved_since_s is None:
            self._unresolved_since_s = self._clock.monotonic()

    def _connect(self) -> None:
        """One connection, until `stop`. Raises a CaptureError when it ends otherwise."""
        self._healthy_since_s = None
        self._expect(OPEN_S, errors.ConnectTimeout())
        ended: CaptureError = errors.Closed()
        try:
            with self._open(self.settings.address, self._transport, self.stop) as feed:
                self._note_connection()
                try:
                    self._sample(feed)
                except CaptureError as error:
                    ended = error  # that is what is wrong, however long the farewell takes
                    raise
                finally:
                    self._expect(CLOSE_S, ended)
        finally:
            self._deadline = None

    def _turn(self, error: TransportRefused) -> None:
        """Go on with the other transport at once, unless it was refused, too, or is UDP in place of rtsps."""
        asked, other = self.settings.transport, OTHER[self._transport]
        self._refusals[self._transport] = error
        is_in_clear = other == "udp" and self.settings.address.scheme == "rtsps"
        if other not in self._refusals and not is_in_clear:
            self._transport = other
            return
        words = [str(each.otherwise or each) for each in self._refusals.values()]
        if other not in self._refusals:
            words.append("This service does not try UDP: rtsps:// does not encrypt it.")
        first = self._refusals.get(asked, error)
        kind = type(first.otherwise or first)
        self._forget_transport()
        self._pause(kind(" ".join(dict.fromkeys(words))))

    def _forget_transport(self) -> None:
        """Begin with the requested one again: a relay whose source is away refuses both."""
        self._transport, self._quirks.transport = self.settings.transport, ""
        self._refusals.clear()

    def _note_connection(self) -> None:
        self._note_lookup()
        with self._lock:
            self._connections += 1
            self._timeline.note_connection(self._clock.now())

    def _sample(self, feed: Feed) -> None:
        sampler: Sampler | None = None
        sampled_s = self._clock.monotonic()
        for packet in feed.packets():
            sampler = sampler or self._sampler_of(feed)  # only the first picture decides which codec it is
            self._learn_transport()
            self._expect_picture()
            if self._take(sampler, packet, feed.codec):
                sampled_s = self._clock.monotonic()
            self._check(sampler, self._clock.monotonic() - sampled_s, feed.patience_s)
            self._expect(feed.patience_s + HANG_S, errors.Stalled())

    def _sampler_of(self, feed: Feed) -> Sampler:
        return Sampler(
            self.settings.interval_s,
            feed.open_decoder,
            self._counts,
            Watch(continuity(feed.codec)),
            on_decoded=self._expect_picture,
        )

    def _learn_transport(self) -> None:
        """Something came: this transport works."""
        self._refusals.clear()
        is_asked = self._transport == self.settings.transport
        self._quirks.transport = "" if is_asked else self._transport

    def _take(self, sampler: Sampler, packet: Packet, codec: str) -> bool:
        """Whether a sample came of the packet. No frame is held when this is over: one of 1080p is 3 MB."""
        has_sampled = False
        for sample in sampler.push(packet):
            has_sampled = True
            self._keep(sample)
            self._note(sample, codec, sampler)
        return has_sampled

    def _check(self, sampler: Sampler, waited_s: float, patience_s: float) -> None:
        """Raises Undecodable once packets come and no sample for too long, even for a camera of this patience."""
        self._has_begun = sampler.has_begun
        longest_s = max(FRAME_S if sampler.has_begun else KEY_FRAME_S, patience_s)
        if waited_s <= self.settings.interval_s + longest_s:
            return
        if sampler.has_begun:
            raise errors.Undecodable(self._why_nothing())
        raise errors.Undecodable(f"The camera has sent no key frame for {KEY_FRAME_S:.0f} s.")

    def _keep(self, sample: Sample) -> None:
        """Score it, and make a picture of it if it enters the leaderboard."""
        frame = sample.frame
        score, print_of_it = brightness(frame), fingerprint(frame)
        is_copy = self._copies.note(score, print_of_it)
        number = self._number + 1
        picture = None
        if not is_copy and self._board.accepts(score):
            jpeg = encode_frame(frame, picture_bytes(self.settings.count))
            picture = Picture(number, score, sample.arrived_at, frame.width, frame.height, jpeg)
        with self._lock:
            self._number = number
            self._samples += 1
            self._repeated += is_copy
            self._last_sample_at = sample.arrived_at
            self._late_s.append(max(0.0, sample.stream_s - sample.due_s))
            self._timeline.note_sample(sample.arrived_at, score)
            if picture and self._board.offer(number, score, picture):
                self._copies.enter(number, score, print_of_it)
                self._copies.keep(number for number, _, _ in self._board.ranking())

    def _note(self, sample: Sample, codec: str, sampler: Sampler) -> None:
        if self._healthy_since_s is None:
            self._healthy_since_s = self._clock.monotonic()
        notices = {
            Notice.FROZEN: self._copies.is_frozen,
            Notice.NO_KEY_FRAMES: sampler.lacks_key_frames,
            Notice.OTHER_TRANSPORT: self._transport != self.settings.transport,
            Notice.HEAVY: self.is_heavy,
            **{RULE_NOTICES[rule]: rule in sampler.watch.rules_off for rule in Rule},
        }
        status = Status(
            State.CAPTURING,
            video=Video(codec, sample.frame.width, sample.frame.height),
            notices=tuple(notice for notice, holds in notices.items() if holds),
        )
        if status != self._status:
            self._set(status)

    @property
    def _has_sampled(self) -> bool:
        """Whether the capture has ever had a sample, by this recorder or by one before it."""
        return self._number > 0

    def _last_status(self) -> Status:
        """With the reason, where pictures came and no sample has come of them.

        The error of an earlier connection is not the reason: pictures have come since.
        """
        status = self._status
        if self._number or self._counts.received == self._received_before:
            return status
        return replace(status, error_code=errors.Undecodable.code, error_text=self._why_nothing())

    def _why_nothing(self) -> str:
        """Why the pictures that came are of no use. One sentence, or two."""
        if rejected := self._counts.rejected:
            reason = "part of them or of an earlier picture was lost or damaged"
            return f"Pictures came, but none could be used: {rejected} were rejected because {reason}."
        if not self._has_begun:
            return "Pictures came, but no key frame yet, and decoding cannot begin without one."
        return errors.Undecodable.words

    def _pause(self, error: CaptureError) -> None:
        wait_s = self._put_off(error)
        if self._unresolved_since_s is not None:
            left_s = max(0.0, self._unresolved_since_s + UNRESOLVED_S - self._clock.monotonic())
            if left_s <= wait_s:
                if not self._clock.wait(self.stop, left_s):
                    self._replace_reason = f"{self.settings.address.host} was not resolved for {UNRESOLVED_S:g} s"
                return
        self._clock.wait(self.stop, wait_s)

    def _put_off(self, error: CaptureError) -> float:
        """Say when it is tried again; in how many seconds that is."""
        since_s = self._healthy_since_s
        healthy_s = 0.0 if since_s is None else self._clock.monotonic() - since_s
        wait_s = self._backoff.after(error.retry_of(self._has_sampled), healthy_s)
        now = self._clock.now()
        next_at = now + wait_s
        with self._lock:
            self._timeline.note_error(now, error.code)
        self._set(Status(State.RECONNECTING, error.code, str(error), self._backoff.attempt, next_at))
        return wait_s

    def _resumed(self, status: Status) -> Status:
        """Go on with the ladder of waits of the recorder before this one."""
        retry = errors.retry_of(status.error_code, self._has_sampled)
        if status.state is not State.RECONNECTING or not status.attempt or retry in (None, Retry.NEVER):
            return Status()
        self._backoff.resume(retry, status.attempt)
        return status

    def _wait_on(self, status: Status) -> None:
        """By the wall clock of whoever said it, which may be wrong: no longer than the error's longest wait."""
        retry = errors.retry_of(status.error_code, self._has_sampled)
        if status.next_attempt_at is None or retry is None:
            return
        wait_s = min(status.next_attempt_at - self._clock.now(), longest_wait_s(retry))
        if wait_s > 0.0:
            self._clock.wait(self.stop, wait_s)

    def _expect(self, within_s: float, error: CaptureError) -> None:
        self._deadline = (self._clock.monotonic() + within_s, error)

    def _expect_picture(self) -> None:
        self._expect(DECODE_S, errors.Undecodable())

    def _set(self, status: Status) -> None:
        with self._lock:
            if status.error_code:
                self._received_before = self._counts.received
            self._status = status
        self._on_change()

    def _counters(self) -> Counters:
        return Counters(
            samples=self._samples,
            missed=self._counts.missed,
            rejected=self._counts.rejected,
            repeated=self._repeated,
            connections=self._connections,
            last_sample_at=self._last_sample_at,
            late_p50_s=_quantile(self._late_s, 0.5),
            late_p95_s=_quantile(self._late_s, 0.95),
        )


def _opener(settings: Settings, quirks: Quirks) -> Opener:
    """One caution for all connections: it learns from each."""
    caution = Caution(settings.networks, settings.verify_certificate, quirks=quirks)
    caution.redirect_ports = settings.redirect_ports
    return partial(open_feed, caution=caution)


def _timeline_of(seed: Seed, interval_s: float, now: float) -> Timeline:
    """Where earlier recorders left it; a new one if they left none that can be read."""
    try:
        return Timeline.decode(seed.timeline)
    except ValueError:
        return Timeline.of_interval(now, interval_s)


def _quantile(values: Collection[float], share: float) -> float | None:
    ordered = sorted(values)
    return ordered[int(share * (len(ordered) - 1))] if ordered else None
