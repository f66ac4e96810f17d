"""django-q2's jobs in the admin: found, named, run again, and nothing of them broken by hand; the first page."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django_q.models import Failure, OrmQ, Schedule, Success, Task
from django_q.tasks import async_task

from streams import retention
from streams.models import Stream
from tests.streams.builders import Response, jobs, make_capture, make_claim, make_finished, make_host
from tests.streams.html import read
from tests.streams.staff import administrator, viewer

pytestmark = pytest.mark.django_db
QUEUED, FAILED, DONE, SCHEDULED = (f"/admin/django_q/{name}/" for name in ("ormq", "failure", "success", "schedule"))
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NO_ROOM = "[Errno 28] No space left on device : Traceback (most recent call last):\n  File <worker>\nOSError: no room"


@pytest.fixture
def admin() -> Client:
    return administrator()


def make_task(job: str = "finish", *args: Any, success: bool = False, result: str = NO_ROOM) -> Task:
    number = Task.objects.count()
    return Task.objects.create(
        id=f"{number:032x}",
        name="lima-carbon-black-two",
        func=f"streams.jobs.{job}",
        args=args,
        kwargs={},
        started=NOON,
        stopped=NOON + timedelta(seconds=2.5),
        success=success,
        attempt_count=3,
        result=result,
    )


def make_queued(job: str, *args: Any) -> OrmQ:
    async_task(f"streams.jobs.{job}", *args)
    return OrmQ.objects.latest("pk")


def text_of(response: Response) -> str:
    assert response.status_code == 200
    return " ".join(read(response.content.decode()).text.split())


def hrefs_of(response: Response) -> list[str]:
    return read(response.content.decode()).values("a", "href")


# --- lists and pages ------------------------------------------------------------------------------


def test_queued_jobs_are_listed_with_what_they_do_and_their_capture(admin: Client) -> None:
    capture = make_capture()
    row = make_queued("place", capture.pk)
    answer = admin.get(QUEUED)
    assert f"place capture {capture.pk}" in text_of(answer)
    assert f"/admin/streams/capture/{capture.pk}/change/" in hrefs_of(answer)
    assert f"place capture {capture.pk}" in text_of(admin.get(f"{QUEUED}{row.pk}/change/"))


def test_a_queued_job_says_since_when_it_waits_or_until_when_a_cluster_has_it(admin: Client) -> None:
    make_queued("place", 7)
    cells = {}
    for lock, moment in (("past", NOON - timedelta(days=9000)), ("future", NOON + timedelta(days=9000))):
        OrmQ.objects.update(lock=moment)
        markup = admin.get(QUEUED).content.decode()
        columns = ("waiting_since", "taken_until")
        cells[lock] = [markup.split(f'class="field-{name}">')[1].partition("<")[0] for name in columns]
    assert cells == {"past": ["April 3, 2002, noon", "-"], "future": ["-", "July 15, 2051, noon"]}


def test_a_queued_job_that_cannot_be_read_is_no_500(admin: Client) -> None:
    row = OrmQ.objects.create(key="rtspsite", payload="nonsense", lock=NOON)
    assert "unreadable" in text_of(admin.get(QUEUED))
    assert "unreadable" in text_of(admin.get(f"{QUEUED}{row.pk}/change/"))


def test_a_failed_job_tells_what_went_wrong(admin: Client) -> None:
    capture = make_finished(frames=0)
    task = make_task("finish", capture.pk)
    answer = admin.get(FAILED)
    assert f"finish capture {capture.pk}" in text_of(answer)
    assert "[Errno 28] No space left on device" in text_of(answer)
    assert "Traceback" not in text_of(answer)
    assert f"/admin/streams/capture/{capture.pk}/change/" in hrefs_of(answer)
    page = text_of(admin.get(f"{FAILED}{task.pk}/change/"))
    for words in (f"finish capture {capture.pk}", "Nov. 23, 2026, noon", "File <worker> OSError: no room"):
        assert words in page


def test_jobs_that_are_done_are_listed_with_their_answer(admin: Client) -> None:
    make_task("prune", 17, success=True, result="4 captures and 9 files removed")
    text = text_of(admin.get(DONE))
    for words in ("prune 17", "4 captures and 9 files removed", "2.5 s"):
        assert words in text


@pytest.mark.parametrize("args", [("x",), (), (None,), (1, 2)])
def test_odd_arguments_are_no_500(admin: Client, args: tuple[Any, ...]) -> None:
    task = make_task("finish", *args)
    answer = admin.get(FAILED)
    assert "finish" in text_of(answer)
    assert not any(href.startswith("/admin/streams/capture/") and "change" in href for href in hrefs_of(answer))
    assert admin.get(f"{FAILED}{task.pk}/change/").status_code == 200


def test_a_job_that_is_gone_leads_back_to_the_list(admin: Client) -> None:
    for path in (QUEUED, FAILED, DONE):
        assert admin.get(f"{path}99/change/").status_code == 302


# --- run again ------------------------------------------------------------------------------------


def run_again(client: Client, *tasks: Task) -> Response:
    return client.post(FAILED, {"action": "run_again", "_selected_action": [task.pk for task in tasks]}, follow=True)


def test_failed_jobs_are_run_again(admin: Client) -> None:
    first, second, third = (make_task("finish", number) for number in (7, 8, 9))
    assert "2 jobs are queued again." in text_of(run_again(admin, first, second))
    assert sorted(jobs()) == [("streams.jobs.finish", (7,)), ("streams.jobs.finish", (8,))]
    assert list(Failure.objects.values_list("pk", flat=True)) == [third.pk]


@pytest.mark.parametrize(("permissions", "queued"), [(["view_failure"], 0), (["view_failure", "change_failure"], 1)])
def test_who_may_only_look_runs_nothing_again(permissions: list[str], queued: int) -> None:
    run_again(viewer(*permissions), make_task("finish", 7))
    assert (OrmQ.objects.count(), Failure.objects.count()) == (queued, 1 - queued)


# --- what nobody may do ---------------------------------------------------------------------------


def test_jobs_are_not_made_changed_or_deleted_by_hand(admin: Client) -> None:
    queued = make_queued("finish", 7)
    failed, done = make_task("finish", 7), make_task("place", 7, success=True)
    rows = {QUEUED: queued.pk, FAILED: failed.pk, DONE: done.pk}
    before = [list(model.objects.values()) for model in (OrmQ, Failure, Success)]
    for path, pk in rows.items():
        assert admin.get(f"{path}add/").status_code == 403
        assert 'name="_save"' not in admin.get(f"{path}{pk}/change/").content.decode()
        assert admin.post(f"{path}{pk}/change/", {"key": "x", "lock_0": "2026-01-01"}).status_code == 403
        assert admin.post(f"{path}{pk}/delete/", {"post": "yes"}).status_code == 403
        admin.post(path, {"action": "delete_selected", "_selected_action": [pk], "post": "yes"})
    assert [list(model.objects.values()) for model in (OrmQ, Failure, Success)] == before


def test_when_a_scheduled_job_runs_may_be_changed_and_nothing_else(admin: Client) -> None:
    retention.keep_schedule()
    schedule = Schedule.objects.get()
    assert "prune" in text_of(admin.get(SCHEDULED))
    assert admin.get(f"{SCHEDULED}add/").status_code == 403
    fields = {"next_run_0": "2030-01-02", "next_run_1": "03:04:05", "repeats": "0", "func": "os.abort", "name": "x"}
    assert admin.post(f"{SCHEDULED}{schedule.pk}/change/", fields).status_code == 302
    changed = Schedule.objects.get()
    assert (changed.next_run, changed.repeats) == (datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC), 0)
    assert (changed.func, changed.name, changed.schedule_type) == (
        schedule.func,
        schedule.name,
        schedule.schedule_type,
    )
    assert admin.post(f"{SCHEDULED}{schedule.pk}/delete/", {"post": "yes"}).status_code == 403
    admin.post(SCHEDULED, {"action": "delete_selected", "_selected_action": [schedule.pk], "post": "yes"})
    assert Schedule.objects.count() == 1


# --- the first page -------------------------------------------------------------------------------


def test_the_first_page_tells_of_streams_hosts_and_jobs(admin: Client) -> None:
    retention.keep_schedule()
    Schedule.objects.update(next_run=NOON)
    make_claim(make_capture(), make_host("north", slots=8))
    make_host("south", slots=4, silent_s=60)
    make_capture("rtsp://other.example/garden")
    Stream.objects.filter(name="garden").update(status="failed")
    make_task("finish", 7)
    make_queued("place", 7)
    make_queued("place", 8)
    answer = admin.get("/admin/")
    text = text_of(answer)
    for words in ("1 queued", "1 failed", "1 of 2 alive", "1 of 8 slots in use", "2 queued", "at Nov 23, 12:00 UTC"):
        assert words in text
    links = [href for href in hrefs_of(answer) if href.startswith("/admin/")]
    assert {QUEUED, FAILED, SCHEDULED, "/admin/streams/stream/?status__exact=failed"} <= set(links)
    assert {href: admin.get(href).status_code for href in links} == dict.fromkeys(links, 200)


def test_the_first_page_of_an_empty_service_is_shown(admin: Client) -> None:
    text = text_of(admin.get("/admin/"))
    for words in ("None yet: start one", "0 of 0 alive", "0 queued", "0 failed"):
        assert words in text


def test_a_queue_in_redis_has_no_list(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.metrics._is_in_database", lambda _: False)
    answer = admin.get("/admin/")
    assert "Queued ones are in Redis" in text_of(answer)
    assert "0 queued" not in text_of(answer)


def test_the_first_page_shows_to_each_what_he_may_see() -> None:
    make_task("finish", 7)
    text = text_of(viewer("view_stream").get("/admin/"))
    assert "None yet" in text
    assert "alive" not in text
    assert "1 failed" not in text
