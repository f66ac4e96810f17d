"""The scripts that show what was found wrong in the field, if they lie beside the checkout: ../shared/field.

FIELD_SCRIPTS names another folder. Where there is none, nothing is collected, and the header of the test run says so.
Each script plays a camera, runs `manage.py capture` with it, and exits 0 if that does what is right.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

from tests.environment import FIELD_SCRIPTS

ROOT = Path(__file__).parents[2]
AT_ONCE = 4  # they mostly wait
LIMIT_S = 150.0
SCRIPTS = sorted(FIELD_SCRIPTS.glob("fail_*.py"))

Outcomes = dict[str, Future[str]]


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Outcomes]:
    """All of them run from the first test on: each test waits for its own."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {script.stem: pool.submit(outcome, script) for script in SCRIPTS}
        pool.shutdown(cancel_futures=True)


def outcome(script: Path) -> str:
    """What it printed, after its status; by whichever worker comes first."""
    told = Path(os.environ["TEST_DATA"]) / "field" / script.stem
    told.parent.mkdir(exist_ok=True)
    with told.with_suffix(".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not told.exists():
            told.write_text(_run(script))
    return told.read_text()


def _run(script: Path) -> str:
    command = [sys.executable, str(script), str(ROOT)]
    environment = {**os.environ, "TMPDIR": os.environ["TEST_DATA"]}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env=environment)
    except subprocess.TimeoutExpired:
        return f"no end within {LIMIT_S:.0f} s"
    return f"status {done.returncode}: {done.stdout}{done.stderr[-2000:]}"


if SCRIPTS:

    @pytest.mark.parametrize("name", [script.stem for script in SCRIPTS])
    def test_what_was_found_in_the_field_is_right(outcomes: Outcomes, name: str) -> None:
        told = outcomes[name].result()
        assert told.startswith("status 0:"), told
