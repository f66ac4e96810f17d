"""Figures that tests measure: printed as a table at the end of the run, whoever of several workers ran the test.

def test_it_comes_back(figure: Figure) -> None:
    figure("recorder killed: sampling again", seconds, 3.0)

What was asked for is printed beside it and not asserted: the machine may be busy with other tests.
"""

from collections.abc import Callable
from typing import Protocol

import pytest

_PROPERTY = "figure"


class Figure(Protocol):
    def __call__(self, what: str, measured: float, asked: float, unit: str = "s") -> None:
        """`asked` is the most that it should be."""


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    def record(what: str, measured: float, asked: float, unit: str = "s") -> None:
        record_property(_PROPERTY, (what, float(measured), float(asked), unit))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Reports travel from xdist's workers with the properties of their test."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    calls = [report for report in reports if isinstance(report, pytest.TestReport) and report.when == "call"]
    found = [value for report in calls for name, value in report.user_properties if name == _PROPERTY]
    if not found:
        return
    rows = sorted(_row(*value) for value in found)  # type: ignore[misc]  # ours are tuples
    width = max(len(what) for what, *_ in rows)
    terminalreporter.section("figures")
    terminalreporter.line(f"{'what':{width}} | {'measured':>12} | {'asked':>12}")
    for what, measured, asked, note in rows:
        terminalreporter.line(f"{what:{width}} | {measured:>12} | {asked:>12}{note}")


def _row(what: str, measured: float, asked: float, unit: str) -> tuple[str, str, str, str]:
    return what, f"{measured:.2f} {unit}", f"{asked:g} {unit}", " | over" if measured > asked else ""
