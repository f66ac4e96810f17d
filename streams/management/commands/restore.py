"""Restores a backup into an empty service."""

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
        os.umask(0o077)  # only the owner may read what is made here
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
            raise CommandError(
                "Interrupted before all was restored. Run the command again.", returncode=Exit.KILLED
            ) from None
        finally:
            bars.close()
        for line in _lines(restored, options["resume"]):
            say(self.stdout, line)


def _lines(restored: restore.Restored, is_resuming: bool) -> list[str]:
    totals = restored.totals
    lines = [
        f"Restored {totals['streams']} streams, {totals['captures']} captures and {totals['pictures']} pictures. "
        f"The backup was made at {restored.made_at} with {restored.database}."
    ]
    if restored.in_progress and is_resuming:
        lines.append(
            f"Captures in progress at the backup: {restored.in_progress}. They go on when the service starts."
        )
    elif restored.in_progress:
        lines.append(f"Captures in progress at the backup: {restored.in_progress}. They are stopped.")
    if restored.unfinished:
        lines.append(f"Grids not made yet: {restored.unfinished}. The service makes them when it starts.")
    return lines + list(_key_lines(restored))


def _key_lines(restored: restore.Restored) -> list[str]:
    if not restored.has_keys:
        lines = ["The keys are not in the backup. Links signed before it are valid only with the same SECRET_KEY."]
    elif restored.written_keys:
        lines = [f"The keys of the backup were written to DATA_DIR: {', '.join(restored.written_keys)}."]
    else:
        lines = ["The keys are in the backup. None of them was written."]
    if keys.SECRET_KEY in restored.other_keys:
        lines.append(
            "This service keeps its own SECRET_KEY. For links signed before the backup, set SECRET_KEY_FALLBACKS to "
            "what this prints: tar -xOf FILE keys/secret_key"
        )
    if keys.CREDENTIALS_KEY in restored.other_keys:
        lines.append(
            "This service keeps its own key for the cameras' passwords. The restore encrypted the passwords again "
            "with that key."
        )
    if restored.sealed:
        lines.append(
            f"The passwords of {restored.sealed} streams cannot be read with the keys of this service. Add the key "
            "of the service that made the backup (its CREDENTIALS_KEYS, or credentials_key of its DATA_DIR) to "
            "CREDENTIALS_KEYS, or enter the passwords again."
        )
    return lines
