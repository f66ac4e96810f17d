"""Who is signed in, for tests of what staff see."""

from django.contrib.auth.models import Permission, User
from django.test import Client

from tests.streams.builders import SITE


def signed_in(user: User) -> Client:
    client = Client(raise_request_exception=False, headers={"host": SITE})
    client.force_login(user)
    return client


def administrator() -> Client:
    """Somebody without a password: to hash one takes longer than most tests."""
    return signed_in(User.objects.create_superuser("admin"))


def viewer(*permissions: str) -> Client:
    """Staff with these permissions alone."""
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return signed_in(user)
