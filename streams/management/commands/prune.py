"""Removes what is old and what nobody knows any more."""

import argparse
import math
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from streams import checks, database_faults, retention
from streams.retention import Pruned, Tally

MAX_DAYS = 36_500.0


class Command(BaseCommand):
    help = (
        "Removes finished captures that are older than CAPTURE_KEEP_DAYS, files that no row knows, hosts that are "
        "silent for a day, failed jobs and sign-ins of long ago. Ends with 1 if a file could not be deleted."
    )
    requires_system_checks = [checks.TAG]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Say what would go, and remove nothing.")
        parser.add_argument(
            "--days", type=_days, metavar="N", help="In place of CAPTURE_KEEP_DAYS; 0 keeps every capture."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        keep_days = settings.CAPTURE_KEEP_DAYS if options["days"] is None else options["days"]
        try:
            pruned = retention.prune(keep_days=keep_days, is_dry_run=options["dry_run"], on_step=self._say_progress)
        except OSError as error:
            raise CommandError(f"The pictures' storage cannot be read: {error}") from None
        except DatabaseError as error:
            raise CommandError(database_faults.sentence(error)) from None
        finally:
            self._clear_progress()
        for line in _lines(pruned, keep_days, "would go" if options["dry_run"] else "removed"):
            self.stdout.write(line)
        if pruned.undeleted:
            raise CommandError(f"{pruned.undeleted} files could not be deleted; the log says which and why.")

    def _say_progress(self, pruned: Pruned) -> None:
        """On a terminal, one line that is written anew."""
        if self.stderr.isatty():
            files = pruned.capture_files.count + pruned.unknown_files.count
            words = f"{pruned.captures} captures, {files} files; looked at captures up to {pruned.swept_to}"
            self.stderr.write(f"\r\033[K{words}", style_func=str, ending="")
            self.stderr.flush()

    def _clear_progress(self) -> None:
        if self.stderr.isatty():
            self.stderr.write("\r\033[K", style_func=str, ending="")


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 <= days <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"must be a number of days from 0 to {MAX_DAYS:g}")
    return days


def _lines(pruned: Pruned, keep_days: float, went: str) -> list[str]:
    captures = f"{pruned.captures} {went} with {_size(pruned.capture_files)}" if keep_days else "all kept"
    lines = [
        f"Finished captures older than {keep_days:g} days: {captures}" if keep_days else f"Captures: {captures}",
        f"Files that no row knows: {_size(pruned.unknown_files)} {went}",
        f"Hosts silent for a day: {pruned.hosts} {went}",
        f"Failed jobs older than {retention.FAILED_JOB_DAYS:g} days: {pruned.failed_jobs} {went}",
        f"Failed sign-ins and sessions that are over: {pruned.sign_ins} {went}",
    ]
    if pruned.missing:
        names = ", ".join(pruned.missing_names) + (" ..." if pruned.missing > len(pruned.missing_names) else "")
        lines.append(f"Rows whose file is missing: {pruned.missing} kept: {names}")
    if pruned.older_than_database:
        lines.append(f"Unknown files that are older than the database: {pruned.older_than_database} kept")
    return lines


def _size(tally: Tally) -> str:
    return f"{tally.count} files of {tally.size_bytes} bytes"
