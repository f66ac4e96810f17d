"""Mistakes across settings, found at the start: each has an id and a hint."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

# For commands that serve no page: to check those as well takes what serves them, half a second of it.
TAG = "streams"

# From the end of the last job before it to its acknowledgement, on a slow database.
ACKNOWLEDGED_S = 10
SECRET_KEY_LENGTH = 32


@register(TAG)
def check_jobs(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """Q_CLUSTER against what django-q2 was seen to do with other numbers."""
    return list(_wrong_jobs(settings.Q_CLUSTER))


@register(Tags.security)
def check_tokens(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """Not a mistake: on a machine of one's own nobody else reaches the website."""
    if settings.API_TOKENS:
        return []
    return [
        Warning(
            "API_TOKEN is not set: whoever reaches the website sees, starts, stops, changes and deletes.",
            hint="Set it to 20 or more random characters, or keep the website's port to yourself.",
            id="streams.W001",
        )
    ]


@register(Tags.security)
def check_names(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """With a token it is no matter: a page of another name has none, and no session."""
    if "*" not in settings.ALLOWED_HOSTS or settings.API_TOKENS:
        return []
    return [
        Warning(
            "ALLOWED_HOSTS has *, and API_TOKEN is not set: a page of any site that makes its name lead here (DNS "
            "rebinding) sees and does what a visitor can.",
            hint="List the names and addresses that visitors use, or set API_TOKEN.",
            id="streams.W004",
        )
    ]


@register(TAG)
def check_secrets(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """Whether others can read, or guess, what nobody else may know. With the secret key they could sign in as
    anybody, and sign jobs, which are pickles: run what they like."""
    found: list[CheckMessage] = [_too_open(path, who) for path in _secret_files() if (who := _who_else(path))]
    if len(settings.SECRET_KEY) < SECRET_KEY_LENGTH:
        found.append(
            Warning(
                f"SECRET_KEY has fewer than {SECRET_KEY_LENGTH} characters: it can be guessed.",
                hint="Set 50 random ones or more, or leave it out: then one is made.",
                id="streams.W003",
            )
        )
    return found


def _secret_files() -> Iterator[Path]:
    """Those that there are."""
    folder = Path(settings.DATA_DIR)
    names = ("secret_key", "credentials_key", "db.sqlite3", "db.sqlite3-wal", "db.sqlite3-shm")
    return (path for name in names if (path := folder / name).is_file())


def _who_else(path: Path) -> str:
    """Who can read the file, beside this user and root; empty if nobody can, as behind a folder that is closed."""
    found, folder = path.stat(), path.parent.stat().st_mode
    if found.st_uid not in (0, os.geteuid()) and os.geteuid() != 0:
        return f"uid {found.st_uid}"
    for who, reads, enters in (("everybody", stat.S_IROTH, stat.S_IXOTH), ("its group", stat.S_IRGRP, stat.S_IXGRP)):
        if found.st_mode & reads and folder & enters:
            return who
    return ""


def _too_open(path: Path, who: str) -> Warning:
    return Warning(f"{path} can be read by {who}.", hint=f"chmod 600 {path}", id="streams.W002")


def _wrong_jobs(conf: Mapping[str, Any]) -> Iterator[Error]:
    timeout_s, workers, limit = _count(conf, "timeout"), _count(conf, "workers"), _count(conf, "queue_limit")
    if not timeout_s:
        yield _wrong(conf, 1, "timeout", "Set whole seconds, at least 1: a job that hangs keeps its worker.")
    if not workers:
        yield _wrong(conf, 2, "workers", "Set how many, at least 1: the default is one for each core.")
    if limit < workers:
        yield _wrong(conf, 3, "queue_limit", f"At least workers ({workers}), or a stop can hang.")
    if timeout_s and workers and limit:
        # It counts from when the pusher takes a job: a worker has to do its share of those taken before it first.
        least_s = timeout_s * (1 + ceil((limit + conf.get("bulk", 1)) / workers)) + ACKNOWLEDGED_S
        if _count(conf, "retry") <= least_s:
            yield _wrong(conf, 4, "retry", f"More than {least_s} s, or a job is given out while it runs.")
    if not _count(conf, "max_attempts"):
        yield _wrong(conf, 5, "max_attempts", "At least 1: 0 tries a job that fails for ever.")
    if _count(conf, "recycle") < 2:
        yield _wrong(conf, 6, "recycle", "At least 2: with 1 a stop hangs or loses jobs.")
    if conf.get("catch_up", True):
        yield _wrong(conf, 7, "catch_up", "False: after a pause each job would run many times.")
    if not 0 < conf.get("poll", 0) <= 1:
        yield _wrong(conf, 8, "poll", "Above 0 and at most 1 s: /start and /stop wait for it.")
    yield from _wrong_names(conf)


def _wrong_names(conf: Mapping[str, Any]) -> Iterator[Error]:
    """Website and hosts have to speak of one queue."""
    if not conf.get("name"):
        yield _wrong(conf, 9, "name", "Set the same on all hosts: it salts the signatures of jobs.")
    if conf.get("ALT_CLUSTERS"):
        yield _wrong(conf, 10, "ALT_CLUSTERS", "Leave it empty: there is one queue.")
    other = os.environ.get("Q_CLUSTER_NAME")
    if other and other != conf.get("name"):
        yield Error(
            f"The environment sets Q_CLUSTER_NAME={other!r}.",
            hint="Unset it: where it is not set, another queue is used.",
            id="streams.E011",
        )


def _wrong(conf: Mapping[str, Any], number: int, name: str, hint: str) -> Error:
    return Error(f"Q_CLUSTER[{name!r}] is {conf.get(name)!r}.", hint=hint, id=f"streams.E{number:03}")


def _count(conf: Mapping[str, Any], name: str) -> int:
    """The whole number of that name; 0 for what is none, or is missing."""
    value = conf.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
