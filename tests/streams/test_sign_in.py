"""Guessing passwords at the sign-in page: how often, who is locked out by it, for how long."""

from datetime import timedelta

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import F
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now
from pytest_django import Settings

from streams import retention
from streams.sign_in import address_of
from tests.streams.builders import API, BROWSER, SITE, Response
from tests.streams.html import read
from tests.streams.staff import administrator

pytestmark = pytest.mark.django_db
WORD = "a-long-enough-word"
HERE, THERE = "192.0.2.7", "198.51.100.9"
PER_USER, PER_ADDRESS = 5, 20


@pytest.fixture(autouse=True)
def keeper() -> User:
    return User.objects.create_superuser("keeper", password=WORD)


def sign_in(
    name: str = "keeper", word: str = "wrong", *, at: str = HERE, accept: str = BROWSER, **more: str
) -> Response:
    client = Client(raise_request_exception=False, headers={"host": SITE, "accept": accept}, REMOTE_ADDR=at)
    return client.post("/admin/login/", {"username": name, "password": word, "next": "/", **more})


def guess(times: int, name: str = "keeper", *, at: str = HERE) -> list[int]:
    return [sign_in(name, f"wrong-{n}", at=at).status_code for n in range(times)]


def wait(**time: float) -> None:
    """So long ago is all that was guessed."""
    AccessAttempt.objects.update(attempt_time=F("attempt_time") - timedelta(**time))


# --- who is locked out, and for how long --------------------------------------------------------------


def test_the_fifth_wrong_password_locks_the_guesser_out_and_nobody_else() -> None:
    assert sign_in(word=WORD).status_code == 302
    assert guess(PER_USER) == [200] * 4 + [429]
    refused = sign_in(word=WORD)
    assert (refused.status_code, refused["Retry-After"]) == (429, "900")
    page = read(refused.content.decode())
    assert page.faults == []
    assert "too_many_attempts" in page.words
    assert "15 minutes" in page.words
    assert sign_in(word=WORD, accept=API).json()["code"] == "too_many_attempts"
    assert sign_in(word=WORD, at=THERE).status_code == 302
    User.objects.create_superuser("other", password=WORD)
    assert sign_in("other", WORD).status_code == 302  # from the same office


def test_it_ends_after_fifteen_minutes_whatever_is_guessed_meanwhile() -> None:
    guess(PER_USER)
    wait(minutes=10)
    assert guess(3) == [429] * 3
    wait(minutes=5)
    assert sign_in(word=WORD).status_code == 302


def test_one_address_may_not_try_one_user_after_the_other() -> None:
    statuses = [sign_in(f"somebody-{n}").status_code for n in range(PER_ADDRESS)]
    assert statuses == [200] * (PER_ADDRESS - 1) + [429]
    assert sign_in(word=WORD).status_code == 429
    assert sign_in(word=WORD, at=THERE).status_code == 302


def test_another_browser_or_another_spelling_is_no_new_beginning() -> None:
    for n in range(PER_USER):
        client = Client(headers={"host": SITE, "user-agent": f"browser-{n}"}, REMOTE_ADDR=HERE)
        client.post("/admin/login/", {"username": "keeper", "password": "wrong"})
    assert sign_in(word=WORD).status_code == 429
    AccessAttempt.objects.all().delete()
    for n in range(PER_ADDRESS):
        sign_in("keeper"[:n] + "keeper"[n:].upper())
    assert sign_in(word=WORD).status_code == 429


def test_the_right_password_makes_the_users_own_mistakes_forgotten_and_no_others() -> None:
    for _ in range(3):
        assert guess(4) == [200] * 4
        assert sign_in(word=WORD).status_code == 302
    for n in range(PER_ADDRESS - 1):
        sign_in(f"somebody-{n}")
    assert sign_in(word=WORD).status_code == 302
    assert sign_in("somebody-else").status_code == 429


def test_who_is_no_staff_cannot_be_told_by_trying() -> None:
    """Wrong, not staff, not active, not there: one answer."""
    User.objects.create_user("guest", password=WORD)
    User.objects.create_superuser("fired", password=WORD)
    User.objects.filter(username="fired").update(is_active=False)
    told = {sign_in(name, WORD).context["form"].non_field_errors()[0] for name in ("guest", "fired", "nobody")}
    assert told == {sign_in().context["form"].non_field_errors()[0]}


@pytest.mark.parametrize("is_https", [True, False])
def test_a_session_is_a_new_one_that_no_script_and_no_other_site_has(settings: Settings, is_https: bool) -> None:
    """One that was there before may be known to whoever put it there."""
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = is_https
    client = Client(headers={"host": SITE})
    ours = client.session
    ours["something"] = "of whoever put it there"
    ours.save()
    client.cookies["sessionid"] = str(ours.session_key)
    assert client.post("/admin/login/", {"username": "keeper", "password": WORD}).status_code == 302
    cookie = client.cookies["sessionid"]
    assert cookie.value not in ("", ours.session_key)
    assert not Session.objects.filter(pk=ours.session_key).exists()
    assert (cookie["httponly"], cookie["samesite"], bool(cookie["secure"])) == (True, "Lax", is_https)
    assert bool(client.cookies["csrftoken"]["secure"]) is is_https


# --- which address it is ------------------------------------------------------------------------------

ADDRESSES = [
    ("192.0.2.7", "", "192.0.2.7"),
    ("192.0.2.7", "203.0.113.1", "192.0.2.7"),
    ("::ffff:192.0.2.7", "", "192.0.2.7"),
    ("2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::"),
    ("::1", "", "::"),
    ("fe80::1%eth0", "", "fe80::"),
    ("", "", "0.0.0.0"),
]
BEHIND_A_PROXY = [
    ("127.0.0.1", "203.0.113.1", "203.0.113.1"),
    ("127.0.0.1", "10.0.0.1, 203.0.113.1", "203.0.113.1"),
    ("127.0.0.1", "203.0.113.1:4711", "203.0.113.1"),
    ("127.0.0.1", "[2001:db8:1:2:3::4]:4711", "2001:db8:1:2::"),
    ("127.0.0.1", "", "127.0.0.1"),
    ("127.0.0.1", "unknown", "127.0.0.1"),
    ("127.0.0.1", "203.0.113.1, '; DROP TABLE", "127.0.0.1"),
    ("127.0.0.1", "[", "127.0.0.1"),
]


@pytest.mark.parametrize(("is_behind", "cases"), [(False, ADDRESSES), (True, BEHIND_A_PROXY)])
def test_the_address_is_what_the_proxy_says_if_there_is_one(
    rf: RequestFactory, settings: Settings, is_behind: bool, cases: list[tuple[str, str, str]]
) -> None:
    settings.HTTPS = is_behind
    for address, forwarded, expected in cases:
        headers = {"x-forwarded-for": forwarded} if forwarded else {}
        assert address_of(rf.get("/", REMOTE_ADDR=address, headers=headers)) == expected


# --- what is kept -------------------------------------------------------------------------------------


def test_nothing_that_was_typed_is_kept_but_the_name(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        sign_in(word="s3cr3t-guess", other="s3cr3t-field")
    row = AccessAttempt.objects.get()
    assert (row.username, row.ip_address, row.failures_since_start) == ("keeper", HERE, 3)
    assert "s3cr3t" not in str(vars(row))
    assert (row.get_data, row.post_data) == ("", "")
    sign_in("s3cr3t-name")
    assert "s3cr3t" not in caplog.text
    assert caplog.text.count(f"sign-in failed address={HERE}") == 4
    guess(4)
    assert caplog.text.count(f"sign-in locked address={HERE}") == 1  # two more wrong ones are not said


def test_old_attempts_and_sessions_go_at_night() -> None:
    administrator()
    guess(2)
    assert retention.prune(keep_days=0).sign_ins == 0
    wait(days=2)
    Session.objects.update(expire_date=now() - timedelta(minutes=1))
    assert retention.prune(keep_days=0, is_dry_run=True).sign_ins == 2
    assert retention.prune(keep_days=0).sign_ins == 2
    assert (AccessAttempt.objects.count(), Session.objects.count()) == (0, 0)


def test_it_is_seen_in_the_admin_who_is_locked_out_and_lifted_there() -> None:
    guess(PER_USER)
    guess(1, "other")
    admin = administrator()
    rows = {row.username: row for row in AccessAttempt.objects.all()}
    page = admin.get("/admin/axes/accessattempt/").content.decode()
    assert (page.count("icon-yes"), page.count("icon-no")) == (1, 1)
    assert admin.get(f"/admin/axes/accessattempt/{rows['keeper'].pk}/change/").status_code == 200
    assert admin.get("/admin/axes/accessattempt/add/").status_code == 403
    answer = admin.post(f"/admin/axes/accessattempt/{rows['keeper'].pk}/delete/", {"post": "yes"})
    assert answer.status_code == 302
    assert sign_in(word=WORD).status_code == 302


def test_who_is_let_in_by_a_session_costs_two_statements(settings: Settings) -> None:
    """Session and user; a token none."""
    settings.API_TOKENS = ["first-token-of-32-characters-xxx"]
    client = administrator()
    bearer = {"authorization": f"Bearer {settings.API_TOKENS[0]}"}
    for headers, expected in (({}, 2), (bearer, 0)):
        with CaptureQueriesContext(connection) as queries:
            assert client.get("/api/", headers=headers).status_code == 302
        assert len(queries) == expected
