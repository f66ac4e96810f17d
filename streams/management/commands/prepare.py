"""What has to be true before the service serves."""

import os
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand
from environs import FileAwareEnv


class Command(BaseCommand):
    help = "Migrates the database, and makes the first account if DJANGO_SUPERUSER_USERNAME and _PASSWORD are set."

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)  # a SQLite file holds password hashes and is made here
        call_command("migrate", interactive=False, verbosity=0)
        self._make_first_account()

    def _make_first_account(self) -> None:
        env = FileAwareEnv(strip_whitespace=True)
        name = env.str("DJANGO_SUPERUSER_USERNAME", "")
        password = env.str("DJANGO_SUPERUSER_PASSWORD", "")
        users = get_user_model().objects
        if not name or not password or users.filter(username=name).exists():
            return
        email = env.str("DJANGO_SUPERUSER_EMAIL", f"{name}@localhost")
        users.create_superuser(username=name, email=email, password=password)
        self.stdout.write(f"The account {name} was made.")
