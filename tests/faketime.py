"""Processes whose clock is wrong, by libfaketime. Monotonic clocks and the times of files stay as they are."""

import os
from pathlib import Path


def ahead(seconds: float) -> dict[str, str]:
    """Variables of a process whose clock is ahead by so much."""
    return {**_variables(), "FAKETIME": f"{seconds:+g}s"}


def steered(file: Path) -> dict[str, str]:
    """Variables of a process whose clock is ahead by what the file says, at any moment: see `steer`."""
    return {**_variables(), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"}


def steer(file: Path, seconds: float) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(f"{seconds:+g}s\n")
    fresh.chmod(0o644)  # for a server that runs as somebody else
    os.replace(fresh, file)


def _variables() -> dict[str, str]:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    assert found, "libfaketime is not installed: make setup-dev"
    return {"LD_PRELOAD": str(found[0]), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
