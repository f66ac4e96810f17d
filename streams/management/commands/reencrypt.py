"""Brings the cameras' credentials to the newest key, so that old ones can go."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from tqdm import tqdm

from streams import checks, queries, services


class Command(BaseCommand):
    help = (
        "Encrypts all stored credentials of cameras with the first of CREDENTIALS_KEYS. Captures go on meanwhile. "
        "Ends with 1 if some can be opened by none of the keys: they stay as they are."
    )
    requires_system_checks = [checks.TAG]

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = self._reencrypt()
        except DatabaseError as error:
            raise CommandError(f"The database is away or not migrated: {str(error).strip()}") from None
        self.stdout.write(
            f"Credentials of {found.total} streams: {found.done} encrypted anew, {found.newest} had the newest "
            "key already."
        )
        if found.sealed:
            raise CommandError(
                f"{found.sealed} can be opened by none of CREDENTIALS_KEYS: add the key that they were encrypted "
                "with, or start those streams with their passwords once more."
            )

    def _reencrypt(self) -> services.Reencrypted:
        found = services.Reencrypted()
        total = queries.streams_with_credentials().count()
        with tqdm(total=total, unit=" streams", disable=None) as bar:
            for batch in services.reencrypt():
                found += batch
                bar.update(batch.total)
        return found
