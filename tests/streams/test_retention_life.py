"""Whatever happens to captures, files and prunes in whatever order: what is in progress or young stays whole."""

import math
import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import transaction
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import F
from django.db.models.functions import Now
from hypothesis import HealthCheck
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pytest_django import Settings

from streams import claims, retention, services
from streams.claims import Candidate, Claim, ClaimLost
from streams.models import Capture, Frame, Host, Stream
from tests.streams.builders import files, make_picture, make_report, make_wish

KEEP_DAYS = 7.0
NUMBERS = st.integers(1, 3)
HOURS = st.sampled_from([0.4, 0.7, 30.0, 100.0])


class Life(RuleBasedStateMachine):
    """Three cameras, two hosts. Time goes on by making all there is older."""

    # Set by the test.
    media: Path
    settings: Settings

    @initialize()
    def begin(self) -> None:
        self.media = Path(tempfile.mkdtemp(dir=type(self).media))
        self.settings.MEDIA_ROOT = self.media
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        self.hosts = [claims.register(name, 2) for name in ("north", "south")]
        self.claims: dict[int, Claim] = {}
        self.alien: set[str] = set()
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "atomic"):
            transaction.set_rollback(True)
            self.atomic.__exit__(None, None, None)

    # --- captures ---

    @rule(number=NUMBERS)
    def start(self, number: int) -> None:
        stream = Stream.objects.filter(name=f"c{number}").first()
        if stream is None or not stream.captures.filter(finished_at=None, stop_requested_at__isnull=False).exists():
            services.start(make_wish(f"rtsp://camera.example/c{number}", count=2))

    @rule(number=NUMBERS, host=st.integers(0, 1))
    def claim(self, number: int, host: int) -> None:
        capture = self.in_progress(number)
        if capture and not capture.stop_requested_at:
            claims.release_all(self.hosts[host])
            if claims.claim(self.hosts[host], [Candidate(capture.pk, capture.epoch)]):
                self.claims[capture.pk] = Claim(capture.pk, self.hosts[host].pk, capture.epoch + 1)

    @rule(number=NUMBERS)
    def checkpoint(self, number: int) -> None:
        for claim in list(self.claims.values())[number - 1 : number]:
            self.number += 1
            kept = tuple(Frame.objects.filter(capture=claim.capture_id).values_list("number", "score"))[:1]
            picture = make_picture(self.number, score=float(100 + self.number % 7))
            try:
                services.checkpoint(claim, services.Totals(), make_report(picture, kept=kept))
            except ClaimLost:
                del self.claims[claim.capture_id]

    @rule(number=NUMBERS)
    def stop(self, number: int) -> None:
        capture = self.in_progress(number)
        if capture:
            services.stop(capture.stream)
            Capture.objects.filter(pk=capture.pk).update(claimed_by=None)

    @rule(number=NUMBERS)
    def finish(self, number: int) -> None:
        capture = self.in_progress(number)
        if capture:
            services.finish(capture.pk)

    # --- files ---

    @rule(number=NUMBERS, folder=st.sampled_from(["frames", "grids"]), is_known=st.booleans())
    def die_between_file_and_row(self, number: int, folder: str, is_known: bool) -> None:
        capture = self.in_progress(number) if is_known else None
        pk = capture.pk if capture else 7000 + number
        self.number += 1
        name = f"{self.number}-0123abcd.jpg" if folder == "frames" else f"{self.number:08x}.jpg"
        self.put(f"{folder}/{pk}/{name}")

    @rule(name=st.sampled_from(["notes.txt", "frames/notes.txt", "frames/7001/cat.jpg", "grids/1/cat.jpg"]))
    def put_something_else(self, name: str) -> None:
        self.alien.add(name)
        self.put(name)

    # --- time ---

    @rule(hours=HOURS)
    def let_time_pass(self, hours: float) -> None:
        """Hosts live on, and have saved all."""
        then = timedelta(hours=hours)
        Capture.objects.filter(finished_at__isnull=False).update(finished_at=F("finished_at") - then)
        Capture.objects.update(started_at=F("started_at") - then)
        for name in files(self.media):
            moment = (self.media / name).stat().st_mtime - hours * 3600
            os.utime(self.media / name, (moment, moment))
        Host.objects.update(heartbeat_at=Now(), saved_at=Now())

    # --- prunes ---

    @rule(is_killed=st.booleans(), is_daily=st.booleans())
    def prune(self, is_killed: bool, is_daily: bool) -> None:
        old = set(Capture.objects.filter(finished_at__lt=self.oldest()).values_list("pk", flat=True))
        stay = self.young_files() | self.alien & set(files(self.media))
        pruned = retention.prune(
            keep_days=KEEP_DAYS,
            limit_s=0.0 if is_killed else math.inf,
            lately_days=retention.LATELY_DAYS if is_daily else math.inf,
        )
        assert pruned.captures == len(old)
        assert not Capture.objects.filter(pk__in=old).exists()
        gone = stay - set(files(self.media))
        assert all(int(name.split("/")[1]) in old for name in gone), gone
        if not is_killed and not is_daily:
            self.check_litter()

    @precondition(lambda self: hasattr(self, "atomic"))
    @invariant()
    def every_row_has_its_file(self) -> None:
        assert self.known() <= set(files(self.media))

    # --- looking ---

    def check_litter(self) -> None:
        """All that is left without a row is young, somebody else's, or a grid that may still be adopted."""
        running = set(Capture.objects.filter(finished_at=None).values_list("pk", flat=True))
        for name in set(files(self.media)) - self.known() - self.young_files() - self.alien:
            assert name.startswith("grids/"), name
            assert int(name.split("/")[1]) in running, name

    def young_files(self) -> set[str]:
        limit_s = time.time() - 3600
        return {name for name in files(self.media) if (self.media / name).stat().st_mtime > limit_s}

    def known(self) -> set[str]:
        grids = Capture.objects.exclude(grid="").values_list("grid", flat=True)
        return {str(name) for name in (*grids, *Frame.objects.values_list("image", flat=True))}

    def oldest(self) -> datetime:
        return datetime.now(UTC) - timedelta(days=KEEP_DAYS)

    def in_progress(self, number: int) -> Capture | None:
        return Capture.objects.filter(finished_at=None, stream__name=f"c{number}").first()

    def put(self, name: str) -> None:
        path = self.media / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


PROFILE = profile(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.django_db
def test_in_whatever_order_nothing_is_lost_and_no_litter_stays(tmp_path: Path, settings: Settings) -> None:
    MigrationRecorder.Migration.objects.update(applied=datetime.now(UTC) - timedelta(days=4000))
    machine = type("Life", (Life,), {"media": tmp_path, "settings": settings})
    run_state_machine_as_test(machine, settings=PROFILE)
