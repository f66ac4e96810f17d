"""Writes a backup: everything that the service keeps, in one file."""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from streams import backup, checks, database_faults, whole_file
from streams.bars import Bars
from streams.exits import Exit
from streams.terminal import mention, say

NAMED = 5
EPILOG = f"""\
Captures go on meanwhile. FILE is written whole or not at all, for its owner alone (0600). It holds streams,
captures, frames, timelines, pictures, accounts, groups, the schedule of the service's jobs and the admin's
history; not hosts, sessions, waiting jobs and failed sign-ins. Passwords of cameras stay encrypted in it.

exit codes:
  {Exit.DONE} done
  {Exit.FAILED} the database or the storage is away, or FILE is written without pictures that cannot be read
  {Exit.CANNOT_WRITE} FILE cannot be written
  {Exit.KILLED} ended by Ctrl-C or SIGTERM; there is no FILE
"""


class Command(BaseCommand):
    help = "Writes a backup of everything that the service keeps into FILE, while it runs."
    requires_system_checks = [checks.TAG]

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        options |= {"epilog": EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
        return super().create_parser(prog_name, subcommand, **options)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help="where to write it; - is standard output")
        parser.add_argument(
            "--with-keys",
            action="store_true",
            help="also the keys: anyone who has FILE can then read the cameras' passwords",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        bars = Bars(self.stderr)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            made = self._make(options["file"], bars, options["with_keys"])
        except whole_file.CannotWrite as error:
            raise CommandError(str(error), returncode=Exit.CANNOT_WRITE) from None
        except backup.CannotBackUp as error:
            raise CommandError(str(error)) from None
        except DatabaseError as error:
            raise CommandError(database_faults.sentence(error)) from None
        except OSError as error:  # what was kept in memory of a temporary file comes to the disk late
            raise CommandError(
                f"The backup cannot be made: {error.strerror}.", returncode=Exit.CANNOT_WRITE
            ) from None
        except KeyboardInterrupt:
            raise CommandError(
                "Interrupted before the backup was complete. No file was written.", returncode=Exit.KILLED
            ) from None
        finally:
            bars.close()
        self._report(options["file"], made)

    def _make(self, file: str, bars: Bars, with_keys: bool) -> backup.Made:
        if file == "-":
            if sys.stdout.isatty():
                raise CommandError("A backup is not written to a terminal. Name a file, or redirect the output.")
            return backup.make(_StandardOutput(), Path(settings.DATA_DIR), bars, has_keys=with_keys)
        path = Path(file)
        whole_file.check(path)
        with whole_file.writing(path) as sink:
            return backup.make(sink, path.resolve().parent, bars, has_keys=with_keys)

    def _report(self, file: str, made: backup.Made) -> None:
        tell = mention if file == "-" else say
        stream = self.stderr if file == "-" else self.stdout
        totals = made.totals
        tell(
            stream,
            f"Backed up {totals['streams']} streams, {totals['captures']} captures and {totals['pictures']} pictures "
            f"in {made.size_bytes / 1e6:.1f} MB.",
        )
        if made.has_keys:
            tell(stream, "The keys are in it: anyone who has it can read the cameras' passwords.")
        else:
            tell(
                stream,
                "The keys are not in it. Keep them in another place: secret_key and credentials_key of DATA_DIR, or "
                "the values of SECRET_KEY and CREDENTIALS_KEYS. Without them you have to enter the cameras' "
                "passwords again.",
            )
        if made.evicted or made.deleted:
            tell(
                stream,
                f"Left out with their rows: {made.evicted} frames that lost their places and {made.deleted} captures "
                "that were deleted during the copy.",
            )
        if made.lost:
            names = ", ".join(made.lost[:NAMED]) + (" ..." if len(made.lost) > NAMED else "")
            raise CommandError(
                f"{len(made.lost)} pictures are missing or damaged in the storage. The backup is whole without them "
                f"and their rows: {names}"
            )


class _StandardOutput:
    """Writes to the descriptor. Python's own buffer would report its errors only at exit."""

    def write(self, data: bytes) -> None:
        """Raises CannotWrite."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(sys.stdout.fileno(), view) :]
        except OSError as error:
            raise whole_file.CannotWrite(f"Standard output cannot be written: {error.strerror}.") from None
