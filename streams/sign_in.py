"""How often a password may be guessed at the sign-in page; django-axes counts.

Five times for one user from one address, twenty times from one address. It ends 15 minutes after the last guess that
counted, and what is guessed meanwhile does not count: nobody is locked out from another address than the guesser's.
"""

import logging
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import urlsplit

from axes.handlers.database import AxesDatabaseHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.db.models import Q, Sum
from django.db.models.functions import Now
from django.db.models.signals import post_save, pre_save
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse

from . import answers, database

log = logging.getLogger(__name__)

OF_AN_ADDRESS = 4  # times as many as of one of its users: there may be an office behind it
_HOST_BITS = 64  # of an IPv6 address: whoever has one has all of its network


class Handler(AxesDatabaseHandler):  # type: ignore[misc]  # it has no types
    """Counts in the database, so that all websites count together."""

    def get_failures(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """Those of the user from this address; or those of all from this address, if they come to more."""
        request.axes_attempt_time = database.now()  # type: ignore[attr-defined]  # what all websites agree on
        by_user, by_address = self.get_user_attempts(request, credentials)
        return _failures(by_user.aggregate(all=_sum())["all"], by_address.aggregate(all=_sum())["all"])

    def reset_user_attempts(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """After a success, the user's alone: who has one account may not guess others' for ever."""
        gone: int = self.filter_user_attempts(request, credentials)[0].delete()[0]
        return gone

    def user_login_failed(self, sender: Any, credentials: dict[str, Any], request: Any = None, **more: Any) -> None:
        was_locked = getattr(request, "axes_locked_out", False)
        if request is not None:
            request.axes_attempt_time = database.now()
        super().user_login_failed(sender, credentials, request, **more)
        if request is not None and not was_locked:  # no user: passwords are typed there
            words = "locked" if request.axes_locked_out else "failed"
            log.warning("sign-in %s address=%s", words, request.axes_ip_address)

    def user_logged_in(self, sender: Any, request: Any, user: Any, **more: Any) -> None:
        super().user_logged_in(sender, request, user, **more)
        log.info("signed in account=%s address=%s", user.get_username(), request.axes_ip_address)


def is_locked(row: AccessAttempt) -> bool:
    """Whether this user is locked out at this address; asks for what came from there lately."""
    begin_at = database.now() - settings.AXES_COOLOFF_TIME
    lately = AccessAttempt.objects.filter(ip_address=row.ip_address, attempt_time__gte=begin_at)
    counts = lately.aggregate(by_user=_sum(username=row.username), by_address=_sum())
    return _failures(counts["by_user"], counts["by_address"]) >= settings.AXES_FAILURE_LIMIT


def _sum(**only: Any) -> Sum:
    return Sum("failures_since_start", filter=Q(**only), default=0)


def _failures(by_user: int, by_address: int) -> int:
    return max(by_user, by_address // OF_AN_ADDRESS)


@receiver(pre_save, sender=AccessAttempt)
def _forget_what_was_sent(instance: AccessAttempt, **_: Any) -> None:
    """Axes would keep the query and the fields of every guess, one after another."""
    instance.get_data = instance.post_data = ""


@receiver(post_save, sender=AccessAttempt)
def _date_by_database(instance: AccessAttempt, created: bool, **_: Any) -> None:
    """A new row has the time of this host, whatever it is given."""
    if created and database.host_ahead_s():
        AccessAttempt.objects.filter(pk=instance.pk).update(attempt_time=Now())


def address_of(request: HttpRequest) -> str:
    """Whoever asks; of an IPv6 address its network. Behind a proxy, which HTTPS=1 tells of, what that says last."""
    told = request.META.get("REMOTE_ADDR", "")
    forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    found = (_address(forwarded) if settings.HTTPS and forwarded else None) or _address(told) or IPv4Address(0)
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or IPv6Address(int(found) >> _HOST_BITS << _HOST_BITS))
    return str(found)


def _address(told: str) -> IPv4Address | IPv6Address | None:
    """With or without a port."""
    for words in (told, _host(told)):
        try:
            return ip_address(words)
        except ValueError:
            continue
    return None


def _host(told: str) -> str:
    try:
        return urlsplit(f"//{told}").hostname or ""
    except ValueError:
        return ""


def locked_out(request: HttpRequest, response: HttpResponse | None, credentials: dict[str, Any]) -> HttpResponse:
    minutes = int(settings.AXES_COOLOFF_TIME.total_seconds() // 60)
    words = f"Too many attempts to sign in went wrong: try again in {minutes} minutes."
    answer = answers.refusal(request, 429, "too_many_attempts", words, title="Try again later")
    answer["Retry-After"] = str(minutes * 60)
    return answer
