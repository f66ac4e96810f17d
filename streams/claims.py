"""Claim, heartbeat, release, expire: the conditional updates of who runs what, nothing else.

A claim is a host's name and an epoch. All times are the database's, so that no host's clock matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from .models import Capture, Host

HEARTBEAT_S = 2.0
CLAIM_S = 15.0  # seven heartbeats: a host that swaps or sits out a long checkpoint keeps its captures


class HostTaken(Exception):
    """Two supervisors run under one host name; the later one has its claims."""


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
    """Captures in progress that no living host claims."""
    return Q(finished_at=None) & (Q(claimed_by=None) | Q(claimed_by__heartbeat_at__lt=_oldest_heartbeat()))


def is_alive() -> Q:
    """Hosts that have said so lately."""
    return Q(heartbeat_at__gte=_oldest_heartbeat())


def register(name: str, slots: int) -> Host:
    """A supervisor starts under this name: whatever its forerunner still claimed is free again."""
    with transaction.atomic():
        new = {"slots": slots, "started_at": Now(), "heartbeat_at": Now()}
        host, _ = Host.objects.get_or_create(name=name, defaults=new)
        Host.objects.filter(pk=host.pk).update(**new, epoch=F("epoch") + 1)
        release_all(host)
    host.refresh_from_db()
    return host


def heartbeat(host: Host) -> None:
    """Raises HostTaken if another supervisor has registered under the same name since."""
    if not Host.objects.filter(pk=host.pk, epoch=host.epoch).update(heartbeat_at=Now()):
        raise HostTaken(host.name)


def claim(host: Host, candidates: Sequence[Candidate]) -> list[int]:
    """Claim of these captures as many as the host has free slots; the ids that it got.

    The lock on the host's row makes the slots exact, however many jobs and ticks claim at once. A candidate
    that somebody claimed since it was read has another epoch, and stays with whoever was first.
    """
    claimed: list[int] = []
    with transaction.atomic():
        slots = Host.objects.select_for_update().values_list("slots", flat=True).get(pk=host.pk)
        free = slots - Capture.objects.filter(claimed_by=host, finished_at=None).count()
        for candidate in candidates:
            if len(claimed) >= free:
                break
            if _claim(host, candidate):
                claimed.append(candidate.capture_id)
    return claimed


def release(claim: Claim) -> bool:
    """Give one claim back; whether it still held."""
    return bool(claim.rows().update(claimed_by=None))


def release_all(host: Host) -> int:
    """Give back all that the host claims; how many."""
    return Capture.objects.filter(claimed_by=host, finished_at=None).update(claimed_by=None)


def retire(host: Host) -> None:
    """A supervisor leaves: its captures are free, and nobody counts on the host."""
    with transaction.atomic():
        release_all(host)
        Host.objects.filter(pk=host.pk).update(heartbeat_at=Now() - timedelta(seconds=10 * CLAIM_S))


def _claim(host: Host, candidate: Candidate) -> int:
    return Capture.objects.filter(
        pk=candidate.capture_id, epoch=candidate.epoch, finished_at=None, stop_requested_at=None
    ).update(claimed_by=host, host_name=host.name, epoch=F("epoch") + 1)


def _oldest_heartbeat() -> "Now":
    return Now() - timedelta(seconds=CLAIM_S)  # type: ignore[return-value]
