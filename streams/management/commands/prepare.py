"""What has to be true before the service serves."""

import os
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Migrates the database, and makes the first account if DJANGO_SUPERUSER_USERNAME and _PASSWORD are set."

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=0)
        name = os.environ.get("DJANGO_SUPERUSER_USERNAME")
        if not name or not os.environ.get("DJANGO_SUPERUSER_PASSWORD"):
            return
        if get_user_model().objects.filter(username=name).exists():
            return
        os.environ.setdefault("DJANGO_SUPERUSER_EMAIL", f"{name}@localhost")
        call_command("createsuperuser", interactive=False, verbosity=0)
        self.stdout.write(f"The account {name} was made.")
