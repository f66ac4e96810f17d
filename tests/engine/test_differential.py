"""The rule for leniency: what libav plays, this service captures. Each behaviour of a camera is met by both.

`make test` runs a sample, and with TEST_ALL=1 (`make test-all`) all of them run. differential.py says how both are
compared, behaviours.py has the table.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest

from .behaviours import BEHAVIOURS, EXCEPTIONS
from .differential import LIMIT_S, Difference, differences

AT_ONCE = 6  # twelve processes of libav, each of which decodes ten small pictures a second
SAMPLE_EVERY = 14  # so that the sample has each kind, and is done in less than a minute
EXCEPTION_LIMIT_S = 3.0  # the engine refuses an exception at once

RULED = [name for name in BEHAVIOURS if name not in EXCEPTIONS]
CHOSEN = RULED if os.environ.get("TEST_ALL") == "1" else RULED[::SAMPLE_EVERY]
GROUPS = [CHOSEN[start : start + AT_ONCE] for start in range(0, len(CHOSEN), AT_ONCE)]


def compared(names: Sequence[str], limit_s: float = LIMIT_S) -> list[Difference]:
    """All at once, and each by both transports: nearly all that these do is wait."""
    with ThreadPoolExecutor(len(names)) as pool:
        found = pool.map(lambda name: differences(name, BEHAVIOURS[name], limit_s), names)
        return [difference for both in found for difference in both]


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: "-".join(islice(names, 2)))
def test_what_libav_plays_is_captured(names: Sequence[str]) -> None:
    differing = [str(difference) for difference in compared(names) if not difference.holds]
    assert not differing, "\n" + "\n".join(differing)


def test_the_exceptions_still_differ() -> None:
    """An exception that libav does not play, or that the engine captures, is none any more."""
    found = compared(list(EXCEPTIONS), EXCEPTION_LIMIT_S)
    agreed = [str(difference) for difference in found if not difference.libav or difference.holds]
    assert not agreed, "\n" + "\n".join(agreed)
