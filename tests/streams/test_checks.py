"""Each number of Q_CLUSTER that django-q2 cannot bear is told at the start."""

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.core.checks import run_checks
from pytest_django import Settings

from streams.checks import check_jobs
from tests.streams.processes import manage

MISSING = "missing"


def ids(settings: Settings, **changes: Any) -> list[str]:
    """What is told of the service's own numbers with these changes."""
    conf = {**configured.Q_CLUSTER, **changes}
    settings.Q_CLUSTER = {name: value for name, value in conf.items() if value is not MISSING}
    found = check_jobs()
    assert all(message.hint and message.is_serious() for message in found)
    return [str(message.id) for message in found]


def test_the_service_s_own_numbers_are_right(settings: Settings) -> None:
    assert ids(settings) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"timeout": None}, "streams.E001"),
        ({"timeout": -1}, "streams.E001"),
        ({"timeout": MISSING}, "streams.E001"),
        ({"workers": MISSING}, "streams.E002"),
        ({"queue_limit": 1}, "streams.E003"),
        ({"queue_limit": MISSING}, "streams.E003"),
        ({"retry": 190}, "streams.E004"),  # 60 s, and twice 60 s before it, and 10 s
        ({"retry": MISSING}, "streams.E004"),
        ({"timeout": 100}, "streams.E004"),
        ({"bulk": 10}, "streams.E004"),
        ({"queue_limit": 10}, "streams.E004"),
        ({"max_attempts": 0}, "streams.E005"),
        ({"max_attempts": MISSING}, "streams.E005"),
        ({"recycle": 1}, "streams.E006"),
        ({"recycle": MISSING}, "streams.E006"),
        ({"catch_up": True}, "streams.E007"),
        ({"catch_up": MISSING}, "streams.E007"),
        ({"poll": 0}, "streams.E008"),
        ({"poll": 5}, "streams.E008"),
        ({"poll": MISSING}, "streams.E008"),
        ({"name": MISSING}, "streams.E009"),
        ({"ALT_CLUSTERS": {"other": {}}}, "streams.E010"),
    ],
    ids=str,
)
def test_a_wrong_number_is_told(settings: Settings, changes: dict[str, Any], expected: str) -> None:
    assert ids(settings, **changes) == [expected]


@pytest.mark.parametrize("changes", [{"retry": 191}, {"recycle": 2}, {"poll": 1.0}, {"workers": 1}], ids=str)
def test_what_is_just_enough_is_right(settings: Settings, changes: dict[str, Any]) -> None:
    assert ids(settings, **({"retry": 300} | changes)) == []


def test_the_other_queue_of_the_environment_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Q_CLUSTER_NAME", "rtspsite")
    assert ids(settings) == []
    monkeypatch.setenv("Q_CLUSTER_NAME", "other")
    assert ids(settings) == ["streams.E011"]


def test_the_checks_are_run_with_all_others(settings: Settings) -> None:
    settings.Q_CLUSTER = {**configured.Q_CLUSTER, "retry": 60}
    assert {message.id for message in run_checks()} == {"streams.W001", "streams.E004"}


def test_any_name_for_anybody_is_told(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["localhost", "*"]
    assert {message.id for message in run_checks()} == {"streams.W001", "streams.W004"}
    settings.API_TOKENS = ["first-token-of-32-characters-xxx"]
    assert run_checks() == []


def test_no_command_starts_with_another_queue(tmp_path: Path) -> None:
    done = manage(tmp_path, "supervise", Q_CLUSTER_NAME="other")
    assert done.returncode != 0
    assert "streams.E011" in done.stderr
