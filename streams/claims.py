"""Claim, heartbeat, release, expire: the conditional updates of who runs what, nothing else.

A claim is a host's name and an epoch. All times are the database's, so that no host's clock matters. Its own clock
may be set back or forward by any span; what that means for heartbeats stands at `forget_future` and `_witnesses`.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import reduce
from operator import or_

from django.db import connection, transaction
from django.db.models import Case, Exists, F, Q, QuerySet, When
from django.db.models.functions import Least, Now

from . import database
from .models import Capture, Host, Status, Stream

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
CLAIM_S = 15.0  # seven heartbeats: a host that swaps or sits out a long checkpoint keeps its captures
# A longer pause between two heartbeats of a host is a gap: it or the database was away.
GAP_S = 3 * HEARTBEAT_S
# A heartbeat that is further in the future was written before the database's clock was set back.
FUTURE_S = 1.0

# Candidates beyond the free slots: so many may be locked by other sessions, and those after them are claimed.
SPARE = 100
# A host whose row was locked by another session for so long writes its heartbeat within RECOVERS_S after that.
LONG_LOCK_S = 1.0
RECOVERS_S = 2 * HEARTBEAT_S + 1.0
_locked_hosts: dict[int, tuple[float, float]] = {}
"""When this process found the row of a silent host locked, first and last; monotonic."""

# How long ago a host that left is said to have been heard: nobody shall look for it.
RETIRED = timedelta(hours=2)


class HostTaken(Exception):
    """Two supervisors run under one host name; the later one has its claims."""


class HostAlive(Exception):
    """Another machine runs a supervisor under this host name, or did so a moment ago."""


class ClaimLost(Exception):
    """The capture is finished, or another host's: write nothing more about it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A capture that was free when it was read."""

    capture_id: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Claim:
    capture_id: int
    host_id: int
    epoch: int

    def rows(self) -> "QuerySet[Capture]":
        """The capture as long as this claim holds: at most one row. Update through it, and look at the count."""
        return Capture.objects.filter(pk=self.capture_id, claimed_by=self.host_id, epoch=self.epoch, finished_at=None)


def is_free() -> Q:
    """Captures in progress that no living host claims.

    That a host is silent counts only while another one is heard: after the database was away everybody's
    heartbeat is old, and whoever comes back first must not take what the others still record.
    """
    is_silent = Q(claimed_by__heartbeat_at__lt=_oldest_heartbeat())
    return Q(finished_at=None) & (Q(claimed_by=None) | is_silent & Q(Exists(_witnesses())))


def is_alive() -> Q:
    """Hosts that have said so lately. A heartbeat in the far future says nothing: the clock was set back since."""
    return Q(heartbeat_at__gte=_oldest_heartbeat(), heartbeat_at__lt=Now() + timedelta(seconds=CLAIM_S))


def _witnesses() -> "QuerySet[Host]":
    """Hosts that could write all the time in which a silent one did not.

    One that was not heard for GAP_S may have missed that the database's clock was set forward: it notices with its
    next heartbeat, and the others get CLAIM_S to be heard.
    """
    is_heard = Q(heartbeat_at__gte=Now() - timedelta(seconds=GAP_S))
    return Host.objects.filter(is_alive(), is_heard, steady_at__lte=_oldest_heartbeat())


@database.retried
def register(name: str, slots: int, instance: str = "") -> Host:
    """A supervisor starts under this name: whatever its forerunner still claimed is free again.

    Raises HostAlive if the forerunner runs on another `instance` and may still live: look again after GAP_S.
    """
    forget_future()
    with transaction.atomic():
        new = {"slots": slots, "instance": instance}
        times = {"started_at": Now(), "heartbeat_at": Now(), "steady_at": Now(), "saved_at": Now()}
        host, is_new = Host.objects.select_for_update().get_or_create(name=name, defaults=new | times)
        if not is_new and host.instance != instance and _was_heard(host):
            raise HostAlive(name)
        Host.objects.filter(pk=host.pk).update(**new, **times, epoch=F("epoch") + 1)
        release_all(host)
    host.refresh_from_db()
    return host


def heartbeat(host: Host, unsaved_s: float = 0.0) -> None:
    """`unsaved_s` is the age of the oldest thing that its recorders have told and that is not saved.

    Raises HostTaken if another supervisor has registered under the same name since.
    """
    forget_future()
    gap = When(heartbeat_at__lt=Now() - timedelta(seconds=GAP_S), then=Now())
    steady_at = Case(gap, default=F("steady_at"))
    times = {"heartbeat_at": Now(), "steady_at": steady_at, "saved_at": Now() - timedelta(seconds=unsaved_s)}
    if not Host.objects.filter(pk=host.pk, epoch=host.epoch).update(**times):
        raise HostTaken(host.name)


def forget_future() -> None:
    """Take times of hosts that lie in the future for now: the database's clock was set back since they were written.

    A host that lives writes its next heartbeat within HEARTBEAT_S; one that is dead is silent CLAIM_S later. Without
    this it would pass for alive until the clock has caught up, and nobody would be steady for long enough to tell.
    """
    future = Now() + timedelta(seconds=FUTURE_S)
    is_future = Q(heartbeat_at__gt=future) | Q(steady_at__gt=future) | Q(saved_at__gt=future)
    hosts = Host.objects.filter(is_future)
    if not hosts.exists():  # nearly always: one read for each heartbeat
        return
    with transaction.atomic():
        # Rows that somebody else's transaction holds are for the next heartbeat: this one must not wait.
        can_skip = connection.features.has_select_for_update_skip_locked
        rows = hosts.select_for_update(skip_locked=can_skip).order_by("id")
        ids = list(rows.values_list("id", flat=True))
        times = {name: Least(F(name), Now()) for name in ("heartbeat_at", "steady_at", "saved_at")}
        Host.objects.filter(pk__in=ids).update(**times)
        database.after_commit(lambda: log.warning("database clock set back hosts=%s", len(ids)))


@database.retried
def claim(host: Host, candidates: Sequence[Candidate]) -> list[int]:
    """Claim of these captures as many as the host has free slots; the ids that it got.

    The lock on the host's row makes the slots exact, however many jobs and ticks claim at once. A candidate
    that somebody claimed since it was read has another epoch, and stays with whoever was first.
    """
    claimed: list[int] = []
    with transaction.atomic():
        slots = Host.objects.select_for_update().values_list("slots", flat=True).get(pk=host.pk)
        free = slots - Capture.objects.filter(claimed_by=host, finished_at=None).count()
        for candidate in _unlocked(candidates[: free + SPARE], free) if free > 0 else ():
            if len(claimed) >= free:
                break
            if _claim(host, candidate):
                claimed.append(candidate.capture_id)
    return claimed


def _unlocked(candidates: Sequence[Candidate], limit: int) -> list[Candidate]:
    """Lock the first of them whose rows can be had now. What another session holds is claimed later, not waited for.

    Nor is a capture of a silent host taken while another session holds that host's row, for then the host cannot
    write its heartbeat. A transaction that its client left idle is ended after 8 s (apps.py).
    """
    by_epoch: dict[int, list[int]] = {}
    for one in candidates:
        by_epoch.setdefault(one.epoch, []).append(one.capture_id)
    unchanged = reduce(or_, (Q(epoch=epoch, pk__in=ids) for epoch, ids in by_epoch.items()), Q(pk__in=[]))
    rows = Capture.objects.select_for_update(skip_locked=True, of=("self",), no_key=True).filter(unchanged)
    rows = rows.filter(finished_at=None, stop_requested_at=None).order_by("id")
    found = dict(rows.values_list("pk", "claimed_by")[:limit])
    hosts = _unlocked_hosts({host_id for host_id in found.values() if host_id})
    return [one for one in candidates if one.capture_id in found and found[one.capture_id] in {None, *hosts}]


def _unlocked_hosts(ids: Iterable[int]) -> set[int]:
    """Those of these silent hosts that could write a heartbeat: their rows are not locked now, nor were a moment ago.

    A lock of less than LONG_LOCK_S is one of ours: another host that claims.
    """
    silent = set(ids)
    if not silent:
        return silent
    rows = Host.objects.select_for_update(skip_locked=True, no_key=True).filter(pk__in=silent)
    found, now_s = set(rows.values_list("pk", flat=True)), time.monotonic()
    for host_id in silent - found:
        _locked_hosts[host_id] = (_locked_hosts.get(host_id, (now_s, now_s))[0], now_s)
    for host_id in found & _locked_hosts.keys():
        first_s, last_s = _locked_hosts[host_id]
        if last_s - first_s >= LONG_LOCK_S and now_s - last_s < RECOVERS_S:
            found.discard(host_id)
        else:
            del _locked_hosts[host_id]
    return found


def renew(claim: Claim) -> Claim:
    """The same claim with another epoch, so that a holder of the old one can no longer write. Raises ClaimLost."""
    if not claim.rows().update(epoch=F("epoch") + 1):
        raise ClaimLost
    return replace(claim, epoch=claim.epoch + 1)


def release(claim: Claim) -> bool:
    """Give one claim back; whether it still held."""
    return bool(claim.rows().update(claimed_by=None))


@database.retried
def release_all(host: Host) -> int:
    """Give back all that the host claims; how many. The rows are locked in the order in which `claim` takes them.

    What another session holds stays claimed: a supervisor of this name renews it, another host takes it over.
    """
    rows = Capture.objects.filter(claimed_by=host, finished_at=None)
    with transaction.atomic():
        ids = list(rows.select_for_update(skip_locked=True).order_by("id").values_list("id", flat=True))
        queue_again(ids)
        return rows.filter(pk__in=ids).update(claimed_by=None)


@database.retried
def expire(capture_ids: Sequence[int]) -> None:
    """Take from silent hosts what nobody else could claim: it waits for a slot, and says so."""
    with transaction.atomic():
        rows = Capture.objects.select_for_update(of=("self",), skip_locked=True)
        found = dict(rows.filter(is_free(), pk__in=capture_ids).order_by("id").values_list("id", "claimed_by"))
        hosts = _unlocked_hosts({host_id for host_id in found.values() if host_id})
        ids = [capture_id for capture_id, host_id in found.items() if host_id in hosts]
        Capture.objects.filter(pk__in=ids).update(claimed_by=None)
        queue_again(ids)


def queue_again(capture_ids: Sequence[int]) -> None:
    """Their streams wait for a host, unless they are being stopped. When the next attempt is due stays written.

    In a transaction. A stream that another session holds keeps the status that it has until the next one is saved.
    """
    rows = Stream.objects.filter(captures__in=capture_ids).exclude(status=Status.STOPPING)
    rows = rows.select_for_update(skip_locked=True, of=("self",), no_key=True).order_by("id")
    ids = list(rows.values_list("id", flat=True))
    Stream.objects.filter(pk__in=ids).update(status=Status.QUEUED, status_at=Now(), notices="", newer_notices="")


@database.retried
def retire(host: Host) -> None:
    """A supervisor leaves: its captures are free, and nobody counts on the host.

    Raises HostTaken if another supervisor has registered under the same name since: the captures are that one's.
    """
    with transaction.atomic():
        rows = Host.objects.filter(pk=host.pk, epoch=host.epoch)  # first, as in `register` and `claim`: no deadlock
        if not rows.update(heartbeat_at=Now() - RETIRED):
            raise HostTaken(host.name)
        release_all(host)


def _claim(host: Host, candidate: Candidate) -> int:
    return Capture.objects.filter(
        pk=candidate.capture_id, epoch=candidate.epoch, finished_at=None, stop_requested_at=None
    ).update(claimed_by=host, host_name=host.name, epoch=F("epoch") + 1)


def _was_heard(host: Host) -> bool:
    """Within the last gap."""
    return Host.objects.filter(pk=host.pk, heartbeat_at__gte=Now() - timedelta(seconds=GAP_S)).exists()


def _oldest_heartbeat() -> "Now":
    return Now() - timedelta(seconds=CLAIM_S)  # type: ignore[return-value]
