"""The database's clock is set back and forward under hosts that live and die.

Instead of the clock all times that are stored are moved: ten seconds pass when each is ten seconds older, and a clock
that is set back by an hour finds them an hour younger.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from django.db.models import F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from streams import claims, queries, retention
from streams.claims import CLAIM_S, GAP_S, HEARTBEAT_S, HostAlive
from streams.models import Capture, Host
from tests.streams.builders import make_capture, make_claim, make_host, silence

STEP_S = 0.5  # of simulated time
TAKEN_OVER_S = 35.0
LONG = 10 * 365 * 86_400.0
TIMES = ("started_at", "heartbeat_at", "steady_at", "saved_at")


def move(seconds: float) -> None:
    """The clock of the database is set back by so much; forward, or time passes, if it is less than nothing."""
    Host.objects.update(**{name: F(name) + timedelta(seconds=seconds) for name in TIMES})


@dataclass
class Hosts:
    """Each has a capture, and beats every HEARTBEAT_S with a phase of its own; the last one lives for ever."""

    count: int
    hosts: list[Host] = field(default_factory=list)
    captures: list[Capture] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)
    time_s: float = 0.0
    quiet_since_s: float = 0.0
    """Since the last step of the clock, or death."""

    def __post_init__(self) -> None:
        for number in range(self.count):
            capture = make_capture(f"rtsp://camera-{number}.example/demo")
            self.hosts.append(make_host(f"host-{number}"))
            self.captures.append(capture)
            make_claim(capture, self.hosts[-1])
        self.pass_time(2 * CLAIM_S)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            move(-STEP_S)
            self.time_s += STEP_S
            for number, host in enumerate(self.hosts):
                phase_s = STEP_S * (number % round(HEARTBEAT_S / STEP_S))
                if number not in self.dead and (self.time_s + phase_s) % HEARTBEAT_S == 0:
                    claims.heartbeat(host)
            self.check()

    def set_back(self, seconds: float) -> None:
        move(seconds)
        self.quiet_since_s = self.time_s
        self.check()

    def kill(self, number: int) -> None:
        if number not in self.dead and number < self.count - 1:
            self.dead.add(number)
            self.quiet_since_s = self.time_s

    def check(self) -> None:
        """No living host loses anything; once all was quiet for long enough, the dead ones have nothing left."""
        found = queries.unclaimed()
        free = {candidate.capture_id for candidate in found.to_capture}
        living = {self.captures[n].pk for n in range(self.count) if n not in self.dead}
        assert not free & living
        if self.time_s - self.quiet_since_s >= TAKEN_OVER_S:
            assert free == {self.captures[n].pk for n in self.dead}


BACK = (1.0, 2.5, 9.0, 14.0, 16.0, 45.0, LONG)
FORWARD = (1.0, 5.9, 6.1, 12.0, 14.0, 14.9, 15.5, LONG)


@pytest.mark.django_db
@pytest.mark.parametrize("seconds", [*BACK, *(-seconds for seconds in FORWARD)])
def test_a_step_costs_no_living_host_a_claim_and_the_dead_are_taken_over(seconds: float) -> None:
    hosts = Hosts(4)
    hosts.kill(0)
    hosts.pass_time(1.0)
    hosts.set_back(seconds)
    hosts.pass_time(3.0)
    hosts.kill(1)
    hosts.pass_time(TAKEN_OVER_S + STEP_S)


@pytest.mark.django_db
@pytest.mark.parametrize(("first", "second"), [(3600.0, 3600.0), (20.0, -20.0), (-3600.0, 3600.0), (14.0, 14.0)])
def test_two_steps_one_after_the_other(first: float, second: float) -> None:
    hosts = Hosts(3)
    hosts.kill(0)
    hosts.set_back(first)
    hosts.pass_time(HEARTBEAT_S)
    hosts.set_back(second)
    hosts.pass_time(TAKEN_OVER_S + STEP_S)


_steps = st.one_of(
    st.tuples(st.just("back"), st.one_of(st.floats(0.1, 40.0), st.sampled_from(BACK))),
    # One for each heartbeat: three that come within two seconds could sum up to a silence.
    st.tuples(st.just("forward"), st.one_of(st.floats(0.1, 40.0), st.sampled_from(FORWARD))),
    st.tuples(st.just("pass"), st.floats(0.5, 20.0)),
    st.tuples(st.just("kill"), st.sampled_from((0.0, 1.0, 2.0))),
)


class Steps(TestCase):
    @settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(_steps, max_size=8))
    def test_whatever_the_clock_and_the_hosts_do(self, steps: list[tuple[str, float]]) -> None:
        hosts = Hosts(4)
        for what, value in steps:
            if what == "pass":
                hosts.pass_time(value)
            elif what == "kill":
                hosts.kill(int(value))
            else:
                hosts.set_back(value if what == "back" else -value)
                hosts.pass_time(HEARTBEAT_S)
        hosts.pass_time(TAKEN_OVER_S + STEP_S)


# --- what else looks at heartbeats ------------------------------------------------------------------


@pytest.mark.django_db
def test_a_host_whose_heartbeat_is_far_in_the_future_is_not_said_to_live() -> None:
    host = make_host()
    silence(host, -3600.0)
    assert not queries.has_living_host()
    assert queries.room().slots is None
    claims.heartbeat(host)
    assert queries.has_living_host()


@pytest.mark.django_db
def test_a_host_that_left_is_not_back_because_the_clock_is() -> None:
    left, living = make_host("left"), make_host("living")
    claims.retire(left)
    move(3 * 3600.0)
    claims.heartbeat(living)
    move(-CLAIM_S - 1)
    claims.heartbeat(living)
    assert list(Host.objects.filter(claims.is_alive())) == [living]


@pytest.mark.django_db
def test_a_name_is_free_again_a_gap_after_the_clock_was_set_back() -> None:
    claims.register("north", 3, "machine-1")
    move(3600.0)
    with pytest.raises(HostAlive):
        claims.register("north", 3, "machine-2")
    move(-GAP_S - 1)
    assert claims.register("north", 3, "machine-2").instance == "machine-2"


@pytest.mark.django_db
def test_a_dead_host_of_the_future_is_forgotten_a_day_later() -> None:
    make_host("dead")
    move(LONG)
    retention.prune(keep_days=0)
    assert Host.objects.count() == 1
    move(-86_401.0)
    assert retention.prune(keep_days=0).hosts == 1


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["steady_at", "saved_at", "heartbeat_at"])
def test_no_time_of_a_host_stays_in_the_future(name: str, caplog: pytest.LogCaptureFixture) -> None:
    hosts = [make_host("one"), make_host("two")]
    Host.objects.update(**{name: F(name) + timedelta(days=1)})
    claims.heartbeat(hosts[0])
    at: Callable[[Host], float] = lambda host: getattr(host, name).timestamp()  # noqa: E731
    moments = [at(host) for host in Host.objects.all()]
    assert max(moments) - min(moments) < 60
    assert all(at(host) == pytest.approx(hosts[0].heartbeat_at.timestamp(), abs=60) for host in Host.objects.all())
