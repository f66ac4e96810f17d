"""The rule for leniency: what libav plays, this service captures. Each behaviour of a camera is met by both.

`make test` runs a sample, and with TEST_ALL=1 (`make test-all`) all of them run. differential.py says how both are
compared, behaviours.py has the table.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from itertools import islice
from pathlib import Path

import pytest

from tests.camera.faults import FAULTS
from tests.camera.oddities import ODDITIES

from .behaviours import (
    AMOUNTS,
    BEHAVIOURS,
    EXCEPTIONS,
    FILMS,
    FILMS_OF,
    GUARDED,
    OTHERS,
    REACHES,
    TRANSPORTS_OF,
)
from .differential import Difference, Seen, differences

AT_ONCE = 6  # twelve processes of libav, each of which decodes ten small pictures a second
SAMPLE_EVERY = 16  # so that the sample has each kind, and is done in less than a minute

EXCEPTED = {name.partition(" by ")[0] for name in EXCEPTIONS}
IS_WHOLE = os.environ.get("TEST_ALL") == "1"
CHOSEN = [
    name for number, name in enumerate(BEHAVIOURS) if IS_WHOLE or number % SAMPLE_EVERY == 0 or name in EXCEPTED
]
GROUPS = [CHOSEN[start : start + AT_ONCE] for start in range(0, len(CHOSEN), AT_ONCE)]


@contextmanager
def turn(names: list[str]) -> Iterator[None]:
    """Two groups run at a time, however many workers there are: more would keep two cores from all other tests."""
    with (Path(os.environ["TEST_DATA"]) / f"differential-{GROUPS.index(names) % 2}.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield


@pytest.mark.timeout(900)  # most of it may be the wait for its turn
@pytest.mark.parametrize("names", GROUPS, ids=lambda names: "-".join(islice(names, 2)))
def test_what_libav_plays_is_captured(names: list[str]) -> None:
    """All of the group at once: nearly all that these do is wait."""
    with turn(names), ThreadPoolExecutor(len(names)) as pool:
        each = pool.map(lambda name: differences(name, BEHAVIOURS[name], EXCEPTIONS), names)
        found = [difference for both in each for difference in both]
    wrong = [f"{one}{_exception(one)}" for one in found if one.holds == bool(_exception(one))]
    assert not wrong, "\n" + "\n".join(wrong)


def test_each_exception_is_a_behaviour() -> None:
    assert set(BEHAVIOURS) >= EXCEPTED


@pytest.mark.parametrize("named", [AMOUNTS, FILMS_OF, TRANSPORTS_OF, GUARDED, REACHES])
def test_what_the_tables_name_is_there(named: Collection[str]) -> None:
    assert set(named) <= {*FAULTS, *ODDITIES}


def test_a_behaviour_has_one_name() -> None:
    assert len(BEHAVIOURS) == len(FILMS) + len(FAULTS) + len(ODDITIES) + len(OTHERS)


# --- what is a difference: the engine has a sample of each fifth picture, libav all of 200 ---

SEEN = Seen(frozenset(range(200)), due=40)


def a_difference(numbers: Iterable[int], *, libav: Seen = SEEN, stills: int = 0, reaches: int = -1) -> Difference:
    return Difference("plays", "tcp", libav, Seen(frozenset(numbers), stills), "", 5, reaches)


def test_each_due_time_may_be_met_at_any_picture_of_its_own() -> None:
    assert a_difference(range(3, 200, 5)).holds
    assert a_difference(range(3, 200, 5)).share == 1


def test_one_due_time_in_ten_may_be_missed() -> None:
    assert a_difference([number for number in range(0, 200, 5) if number % 50]).holds
    assert not a_difference([number for number in range(0, 200, 5) if number % 45]).holds


def test_a_sample_has_to_be_as_late_as_the_last_picture() -> None:
    assert a_difference(range(0, 196, 5)).holds
    assert not a_difference(range(0, 191, 5)).is_later


def test_what_libav_does_not_play_is_no_difference() -> None:
    assert a_difference([], libav=Seen()).holds
    assert not a_difference([49], libav=Seen(), reaches=50).holds
    assert a_difference([50], libav=Seen(), reaches=50).holds


def test_stills_are_counted() -> None:
    assert a_difference([0], libav=Seen(frozenset([0]), stills=199, due=40), stills=39).holds
    assert not a_difference([0], libav=Seen(frozenset([0]), stills=199, due=40), stills=30).holds


def _exception(difference: Difference) -> str:
    """The reason why it differs; empty: it must not. An exception that libav does not play is none any more."""
    reason = EXCEPTIONS.get(difference.behaviour) or EXCEPTIONS.get(difference.id)
    return f"; that is an exception and should differ: {reason}" if reason else ""
