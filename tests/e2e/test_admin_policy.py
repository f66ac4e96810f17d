"""The admin and the API's page as they are used in a browser: nothing that they do is against the strict policy."""

from collections.abc import Iterator

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.urls import reverse
from django_q.tasks import async_task
from playwright.sync_api import Page, expect
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from streams import retention
from streams.models import Frame
from tests.e2e.browser import Visit, chromium
from tests.e2e.prepared import ADMIN
from tests.streams.builders import make_finished, make_host
from tests.streams.test_admin_jobs import make_task

# What an attacker would have in a page who can write into it.
INJECT = """document.body.insertAdjacentHTML("beforeend", '<img src="data:," onerror="window.isRun = true">')"""


@pytest.mark.django_db(transaction=True)
def test_no_page_does_what_the_policy_forbids(live_server: LiveServer, settings: Settings) -> None:
    """Leaving the visit fails with whatever the browser complained of."""
    settings.ALLOWED_HOSTS = ["localhost"]
    fill()
    addresses, user = list(pages()), reverse("admin:auth_user_change", args=[User.objects.get().pk])
    picture = reverse("frame", args=[Frame.objects.order_by("id")[0].pk])
    with chromium() as browser, Visit(browser, live_server.url) as visit:
        sign_in(visit.page)
        for address in addresses:
            answer = visit.page.goto(address)
            assert answer
            assert answer.status in (200, 403), address
        a_date_is_picked(visit.page, user)
        a_failed_job_is_run_again(visit.page)
        a_call_is_tried(visit.page)
        a_picture_is_looked_at(visit.page, picture)
        visit.check()
        what_is_injected_does_not_run(visit.page)
        assert any("script-src" in said for said in visit.complaints), "the browser tells of it"
        visit.complaints.clear()


def fill() -> None:
    """A row of each kind."""
    make_finished()
    make_host()
    make_task("finish", 1)
    make_task("finish", 1, success=True, result="done")
    async_task("streams.jobs.place", 1)
    retention.keep_schedule()
    User.objects.create_superuser(ADMIN[0], password=ADMIN[1])


def pages() -> Iterator[str]:
    """Every address of the admin that a row has, and those without one."""
    yield from map(reverse, ("admin:index", "admin:password_change"))
    for model in admin.site._registry:
        kind = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        yield from (reverse(f"{kind}_changelist"), reverse(f"{kind}_add"))
        if row := model._default_manager.first():
            yield from (reverse(f"{kind}_{name}", args=[row.pk]) for name in ("change", "history", "delete"))


def sign_in(tab: Page) -> None:
    tab.goto("/admin/login/")
    tab.get_by_label("Username").fill(ADMIN[0])
    tab.get_by_label("Password").fill(ADMIN[1])
    tab.get_by_role("button", name="Log in").click()
    expect(tab.get_by_role("link", name="Change password")).to_be_visible()


def a_date_is_picked(tab: Page, user: str) -> None:
    """And two boxes of permissions, which the admin's script makes of one."""
    tab.goto(user)
    day = tab.locator("#id_date_joined_0")
    day.fill("2020-01-01")
    tab.locator(".field-date_joined .datetimeshortcuts a").first.click()
    expect(day).not_to_have_value("2020-01-01")
    tab.locator(".field-date_joined .datetimeshortcuts a").nth(1).click()
    expect(tab.locator(".calendarbox:visible")).to_have_count(1)
    tab.keyboard.press("Escape")
    tab.locator("#id_user_permissions_input").fill("stream")
    tab.locator("#id_user_permissions_from option").first.dblclick()
    expect(tab.locator("#id_user_permissions_to option")).to_have_count(1)


def a_failed_job_is_run_again(tab: Page) -> None:
    tab.goto(reverse("admin:django_q_failure_changelist"))
    tab.locator("#action-toggle").check()
    tab.get_by_label("Action:").select_option(index=1)
    tab.get_by_role("button", name="Run").or_(tab.get_by_role("button", name="Go")).first.click()
    expect(tab.locator(".messagelist")).to_be_visible()


def a_call_is_tried(tab: Page) -> None:
    """Swagger UI asks the service and shows what came."""
    tab.goto("/api/docs")
    tab.get_by_text("List streams").first.click()
    tab.get_by_role("button", name="Try it out").click()
    tab.get_by_role("button", name="Execute").click()
    expect(tab.get_by_role("heading", name="Response headers").first).to_be_visible()


def a_picture_is_looked_at(tab: Page, picture: str) -> None:
    """By itself, in the page that the browser makes for it."""
    tab.goto(picture)
    assert tab.locator("img").evaluate("image => image.naturalWidth") > 0


def what_is_injected_does_not_run(tab: Page) -> None:
    tab.goto(reverse("admin:index"))
    tab.evaluate(INJECT)
    tab.evaluate("new Promise(done => setTimeout(done, 0))")
    assert tab.evaluate("window.isRun === undefined")
