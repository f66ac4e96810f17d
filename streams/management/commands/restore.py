"""A backup into an empty service."""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from rtspsite import keys
from streams import checks, database_faults, restore
from streams.bars import Bars
from streams.exits import Exit
from streams.terminal import say

EPILOG = f"""\
Stop the service first. The database may be SQLite or PostgreSQL, whichever the backup came from, and is migrated.
It must hold no stream and no capture. An account or group of the same name is replaced, others stay. MEDIA_ROOT or
S3_PREFIX must hold no picture that is not in the backup. All of FILE is checked before anything is written.

exit codes:
  {Exit.DONE} done
  {Exit.FAILED} the database is away
  {Exit.REFUSED} refused, with the reason: nothing was restored
  {Exit.KILLED} ended by Ctrl-C or SIGTERM
"""


class Command(BaseCommand):
    help = "Restores a backup of `manage.py backup` into an empty database and an empty storage of pictures."
    requires_system_checks = [checks.TAG]

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        options |= {"epilog": EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
        return super().create_parser(prog_name, subcommand, **options)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help="the backup; - is standard input")
        parser.add_argument(
            "--resume",
            action="store_true",
            help="captures that were in progress go on when the service starts, instead of being finished now",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)  # what is made here is for nobody else to read
        bars = Bars(self.stderr)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with restore.opened(options["file"], Path(settings.DATA_DIR), sys.stdin.buffer) as file:
                restored = restore.restore(file, bars, is_resuming=options["resume"])
        except restore.Refused as error:
            raise CommandError(str(error), returncode=Exit.REFUSED) from None
        except DatabaseError as error:
            raise CommandError(database_faults.sentence(error)) from None
        except KeyboardInterrupt:
            raise CommandError("Ended before all was restored: run it again.", returncode=Exit.KILLED) from None
        finally:
            bars.close()
        for line in _lines(restored, options["resume"]):
            say(self.stdout, line)


def _lines(restored: restore.Restored, is_resuming: bool) -> list[str]:
    totals = restored.totals
    lines = [
        f"Restored {totals['streams']} streams, {totals['captures']} captures and {totals['pictures']} pictures of "
        f"{restored.made_at} ({restored.database})."
    ]
    if restored.in_progress and is_resuming:
        lines.append(f"Captures that were in progress: {restored.in_progress}; they go on when the service starts.")
    elif restored.in_progress:
        lines.append(f"Captures that were in progress: {restored.in_progress}; they are stopped.")
    if restored.unfinished:
        lines.append(f"Grids that were not made: {restored.unfinished}; the service makes them when it runs.")
    return lines + list(_key_lines(restored))


def _key_lines(restored: restore.Restored) -> list[str]:
    if not restored.has_keys:
        lines = ["The keys are not in the backup: links that were signed before need its SECRET_KEY."]
    elif restored.written_keys:
        lines = [f"The keys are in the backup, and were written to DATA_DIR: {', '.join(restored.written_keys)}."]
    else:
        lines = ["The keys are in the backup; none had to be written."]
    if keys.SECRET_KEY in restored.other_keys:
        lines.append(
            "This service has another SECRET_KEY, from the environment or from DATA_DIR, which stays: links that "
            "were signed before open with SECRET_KEY_FALLBACKS set to the backup's: tar -xOf FILE keys/secret_key"
        )
    if keys.CREDENTIALS_KEY in restored.other_keys:
        lines.append(
            "This service has another key for the cameras' passwords, from the environment or from DATA_DIR, which "
            "stays: the passwords were encrypted anew with it."
        )
    if restored.sealed:
        lines.append(
            f"The passwords of {restored.sealed} streams cannot be read with the keys of this service: bring the key "
            "of the service that they came from (CREDENTIALS_KEYS, or credentials_key of its DATA_DIR), or give the "
            "passwords again."
        )
    return lines
