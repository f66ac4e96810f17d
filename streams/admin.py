"""History: what was captured, when, and why it ended; who captures, and the jobs. What is over is read-only."""

from datetime import UTC, datetime
from typing import Any

from axes.models import AccessAttempt
from django import forms
from django.apps import apps
from django.contrib import admin, messages
from django.db.models import BooleanField, Count, ExpressionWrapper, F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.forms.models import model_to_dict
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django_q.admin import FailAdmin, QueueAdmin, ScheduleAdmin, TaskAdmin, resubmit_task
from django_q.models import Failure, OrmQ, Schedule, Success, Task

from . import chart, claims, database, queries, services, sign_in
from .engine import masking
from .engine.errors import CaptureError
from .forms import MAX_PASSWORD_LENGTH, MAX_USERNAME_LENGTH, CredentialField
from .models import Capture, Frame, Host, Stream

NOTHING = "-"
MONTHS_SHOWN = 24
ROWS = 50  # each with a picture


class ReadOnly:
    """Rows that the service writes and people read."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class Styled:
    """With our few rules beside the admin's own."""

    class Media:
        css = {"all": ["streams/admin.css"]}


class ErrorFilter(admin.SimpleListFilter):
    """By the codes that there are; Django's own has a link without words for those without an error."""

    title = "error"
    parameter_name = "error_code"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = model_admin.model.objects.exclude(error_code="").order_by("error_code")
        return [(code, code) for code in rows.values_list("error_code", flat=True).distinct()]

    def queryset(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.filter(error_code=self.value()) if self.value() else rows


class Unshown(forms.PasswordInput):
    """What is typed is seen, and not shown again beside another field's mistake."""

    input_type = "text"


class StreamForm(forms.ModelForm):  # type: ignore[type-arg]
    """Credentials can be typed, and none is ever shown."""

    username = CredentialField("username", MAX_USERNAME_LENGTH)
    password = CredentialField("password", MAX_PASSWORD_LENGTH)
    remove_credentials = forms.BooleanField(required=False, help_text="User name and password both.")

    class Meta:
        model = Stream
        fields = services.SETTINGS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        running = model_to_dict(queries.settings_of(self.instance), ("interval_s", "count", "transport"))
        self.initial = {**self.initial, **running}
        for name, box in (("username", Unshown), ("password", forms.PasswordInput)):
            typed = "new-password" if name == "password" else "off"
            self.fields[name].widget = box(attrs={"class": "vTextField", "autocomplete": typed})
            self.fields[name].help_text = "Left empty: as it is."

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        masking.remember(data.get("username") or "", [data.get("password") or ""])
        if self.change() == services.Change():
            return data
        if data.get("remove_credentials") and (data.get("username") or data.get("password")):
            self.add_error("remove_credentials", "Either give new ones or remove those that there are.")
        try:
            services.check_change(self.instance, self.change())
        except services.Refused as error:
            self.add_error("password" if error.field else None, str(error))
        return data

    def change(self) -> services.Change:
        """What is other than it was; of the credentials what is typed."""
        data = self.cleaned_data
        given = {name: data[name] for name in services.SETTINGS if name in self.changed_data and name in data}
        if data.get("remove_credentials"):
            return services.Change(username="", password="", **given)
        credentials = {name: data.get(name) or None for name in ("username", "password")}
        return services.Change(**credentials, **given)


@admin.register(Stream)
class StreamAdmin(Styled, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        "name",
        "best_frame",
        "status",
        "last_error",
        "captures_link",
        "interval_now",
        "count_now",
        "url",
        "status_at",
    )
    list_filter = ("status", ErrorFilter)
    list_per_page = ROWS
    search_fields = ("name", "url")
    actions = ("start", "stop")
    form = StreamForm
    fields = (
        "name",
        "best_frame",
        "url",
        "has_credentials",
        "username",
        "password",
        "remove_credentials",
        "interval_s",
        "count",
        "transport",
        "verify_certificate",
        "status",
        "status_at",
        "notices_shown",
        "quirks",
        "last_error",
        "attempt",
        "next_attempt_at",
        "created_at",
        "captures_link",
    )
    readonly_fields = (
        "name",
        "best_frame",
        "url",
        "has_credentials",
        "status",
        "status_at",
        "notices_shown",
        "quirks",
        "last_error",
        "attempt",
        "next_attempt_at",
        "created_at",
        "captures_link",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Stream]:
        streams: QuerySet[Stream] = queries.with_has_credentials(super().get_queryset(request))
        captures = Capture.objects.filter(stream=OuterRef("pk")).order_by()
        latest = captures.order_by("-id").values("pk")[:1]
        best = Frame.objects.filter(capture=OuterRef("latest_id")).order_by("-score", "number")
        return streams.annotate(
            capture_count=_count(captures, "stream"),
            interval_now=Coalesce(Subquery(captures.filter(finished_at=None).values("interval_s")), F("interval_s")),
            count_now=Coalesce(Subquery(captures.filter(finished_at=None).values("count")), F("count")),
            latest_id=Subquery(latest),
            best_id=Subquery(best.values("pk")[:1]),
        )

    def view_on_site(self, stream: Stream) -> str:
        return reverse("stream", args=[stream.name])

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # /start makes streams: it takes the address apart and hides its credentials

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, stream: Stream, form: Any, change: bool) -> None:
        """By the service that the API uses: it locks the row, whose other fields the supervisor writes meanwhile."""
        if form.change() != services.Change():
            services.change_stream(stream, form.change())

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """A stream may be started after its form was checked: then the form is shown again and nothing is saved."""
        try:
            return super().changeform_view(request, *args, **kwargs)
        except services.Refused as error:
            self.message_user(request, f"Nothing was changed. {error}", messages.ERROR)
            return HttpResponseRedirect(request.path)

    @admin.display(description="credentials", boolean=True)
    def has_credentials(self, stream: Stream) -> bool:
        return bool(stream.has_credentials)  # type: ignore[attr-defined]

    @admin.display(description="best frame now")
    def best_frame(self, stream: Stream) -> SafeString | str:
        frame_id: int | None = stream.best_id  # type: ignore[attr-defined]
        if frame_id is None:
            return NOTHING
        return _picture(reverse("frame_small", args=[frame_id]), f"Best frame of {stream}", self.view_on_site(stream))

    @admin.display(description="interval (s)", ordering="interval_now")
    def interval_now(self, stream: Stream) -> float:
        seconds: float = stream.interval_now  # type: ignore[attr-defined]
        return seconds

    @admin.display(description="count", ordering="count_now")
    def count_now(self, stream: Stream) -> int:
        count: int = stream.count_now  # type: ignore[attr-defined]
        return count

    @admin.display(description="last error", ordering="error_code")
    def last_error(self, stream: Stream) -> SafeString | str:
        if not stream.error_code:
            return NOTHING
        text = f"{stream.error_code}: {stream.error_text}"
        return format_html('<div class="error-words">{}</div>', text)

    @admin.display(description="notices")
    def notices_shown(self, stream: Stream) -> str:
        return " ".join(stream.notice_words) or NOTHING

    @admin.display(description="captures", ordering="capture_count")
    def captures_link(self, stream: Stream) -> SafeString:
        url = f"{reverse('admin:streams_capture_changelist')}?stream__id__exact={stream.pk}"
        count: int = stream.capture_count  # type: ignore[attr-defined]
        return format_html('<a href="{}">{} capture{}</a>', url, count, "" if count == 1 else "s")

    @admin.action(permissions=["change"], description="Start capturing the selected streams")
    def start(self, request: HttpRequest, streams: QuerySet[Stream]) -> None:
        for stream in streams:
            try:
                started = services.start_again(stream)
            except (services.StartRefused, CaptureError) as error:
                self.message_user(request, f"Cannot start {stream.name}: {error}", messages.ERROR)
                continue
            words = "Started" if started.is_new else "Already running"  # not the name: the admin would capitalise it
            self.message_user(request, f"{words}: {stream.name}.", messages.SUCCESS)

    @admin.action(permissions=["change"], description="Stop capturing the selected streams")
    def stop(self, request: HttpRequest, streams: QuerySet[Stream]) -> None:
        for stream in streams:
            capture = services.stop(stream)
            if capture is None or capture.is_finished:
                self.message_user(request, f"Not running: {stream.name}.", messages.WARNING)
            else:
                self.message_user(request, f"Stopping: {stream.name}.", messages.SUCCESS)


class FrameInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = Frame
    fields = ("rank", "picture", "score_shown", "captured_at", "number", "size")
    readonly_fields = fields
    ordering = ("-score", "number")
    verbose_name_plural = "frames, best first"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Frame]:
        frames = super().get_queryset(request).select_related("capture__stream")
        return queries.with_rank(frames.defer("capture__stream__credentials"))

    def rank(self, frame: Frame) -> int:
        rank: int = frame.rank  # type: ignore[attr-defined]
        return rank

    def picture(self, frame: Frame) -> SafeString:
        words = f"Sample {frame.number} of {frame.capture.stream}"
        return _picture(reverse("frame_small", args=[frame.pk]), words, reverse("frame", args=[frame.pk]))

    @admin.display(description="brightness")
    def score_shown(self, frame: Frame) -> str:
        return f"{frame.score:.1f}"

    def size(self, frame: Frame) -> str:
        return f"{frame.width} x {frame.height}"


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in queries.CAPTURE_STATES]

    def queryset(self, request: HttpRequest, captures: QuerySet[Capture]) -> QuerySet[Capture]:
        state = queries.CAPTURE_STATES.get(self.value() or "")
        return captures if state is None else captures.filter(state)


class StreamFilter(admin.RelatedFieldListFilter):
    """By name alone: whole rows would have their credentials decrypted, for each that is listed."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        return list(Stream.objects.values_list("pk", "name"))


class MonthFilter(admin.SimpleListFilter):
    """In place of the admin's `date_hierarchy`, which has SQLite call Python for each of 10,000 captures: 100 ms."""

    title = "month of start"
    parameter_name = "month"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        found = queries.months_of_captures(MONTHS_SHOWN)
        return [(f"{month:%Y-%m}", date_format(month, "F Y")) for month in found]

    def queryset(self, request: HttpRequest, captures: QuerySet[Capture]) -> QuerySet[Capture]:
        try:
            month = datetime.strptime(self.value() or "", "%Y-%m").replace(tzinfo=UTC)
        except ValueError:
            return captures
        return captures.filter(started_at__gte=month, started_at__lt=queries.month_after(month))


@admin.register(Capture)
class CaptureAdmin(Styled, ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        "id",
        "grid_small",
        "stream_link",
        "state",
        "frames_kept",
        "reason",
        "started_at",
        "finished_at",
        "samples",
        "host_name",
    )
    list_display_links = ("id",)
    # Streams come last: they are many.
    list_filter = (
        StateFilter,
        "ending",
        ErrorFilter,
        "started_at",
        MonthFilter,
        ("stream", StreamFilter),
    )
    list_per_page = ROWS
    search_fields = ("stream__name", "stream__url")
    inlines = (FrameInline,)
    fields = (
        "stream_link",
        "grid_large",
        "downloads",
        "timeline_shown",
        "state",
        "reason",
        "started_at",
        "stop_requested_at",
        "finished_at",
        "interval_s",
        "count",
        "transport",
        "frames_kept",
        "samples",
        "missed",
        "rejected",
        "repeated",
        "connections",
        "last_sample_at",
        "late_p50_s",
        "late_p95_s",
        "host_name",
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Capture]:
        captures: QuerySet[Capture] = super().get_queryset(request)
        return queries.with_frame_count(captures.select_related("stream").defer("stream__credentials"))

    def view_on_site(self, capture: Capture) -> str:
        return reverse("capture", args=[capture.pk])

    @admin.display(description="stream", ordering="stream__name")
    def stream_link(self, capture: Capture) -> SafeString:
        return _link("streams_stream", capture.stream_id, capture.stream)

    @admin.display(description="grid")
    def grid_small(self, capture: Capture) -> SafeString | str:
        if not capture.grid:
            return NOTHING
        url = reverse("admin:streams_capture_change", args=[capture.pk])
        return _picture(reverse("grid_small", args=[capture.pk]), f"Grid of {capture}", url)

    @admin.display(description="grid")
    def grid_large(self, capture: Capture) -> SafeString | str:
        if not capture.grid:
            return NOTHING
        url = reverse("grid", args=[capture.pk])
        return format_html('<a href="{0}"><img class="grid" src="{0}" alt="Grid of {1}"></a>', url, capture)

    @admin.display(description="downloads")
    def downloads(self, capture: Capture) -> SafeString:
        everything = format_html('<a href="{}">Everything (zip)</a>', reverse("capture_zip", args=[capture.pk]))
        if not capture.grid:
            return everything
        grid = reverse("grid", args=[capture.pk])
        return format_html('<a href="{}?download">Grid</a>, {}', grid, everything)

    @admin.display(description="timeline")
    def timeline_shown(self, capture: Capture) -> str:
        frames = list(queries.ranked_frames(capture))
        found = chart.chart(capture, frames, queries.timeline_of(capture), database.now())
        return render_to_string("streams/_timeline.html", {"chart": found}) if found else NOTHING

    @admin.display(description="state", ordering="finished_at")
    def state(self, capture: Capture) -> str:
        if capture.is_finished:
            return "finished"
        return "stopping" if capture.stop_requested_at else "in progress"

    @admin.display(description="frames", ordering="frame_count")
    def frames_kept(self, capture: Capture) -> str:
        count: int = capture.frame_count  # type: ignore[attr-defined]
        return f"{count} of {capture.count}"

    @admin.display(description="reason of ending", ordering="ending")
    def reason(self, capture: Capture) -> str:
        error = f"{capture.error_code}: {capture.error_text}" if capture.error_code else ""
        return ", last error ".join(filter(None, [capture.get_ending_display(), error])) or NOTHING


@admin.register(Host)
class HostAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "is_alive", "slots_used", "started_at", "heartbeat_at")
    fields = ("name", "is_alive", "slots_used", "started_at", "heartbeat_at", "steady_at", "saved_at", "epoch")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Host]:
        hosts: QuerySet[Host] = super().get_queryset(request)
        return hosts.annotate(
            heard=ExpressionWrapper(claims.is_alive(), BooleanField()),
            used=_count(Capture.objects.filter(claimed_by=OuterRef("pk")).order_by(), "claimed_by"),
        )

    @admin.display(description="alive", boolean=True, ordering="heartbeat_at")
    def is_alive(self, host: Host) -> bool:
        return bool(host.heard)  # type: ignore[attr-defined]

    @admin.display(description="slots in use", ordering="used")
    def slots_used(self, host: Host) -> SafeString:
        url = f"{reverse('admin:streams_capture_changelist')}?claimed_by__id__exact={host.pk}"
        used: int = host.used  # type: ignore[attr-defined]
        return format_html('<a href="{}">{} of {}</a>', url, used, host.slots)


# --- jobs: django-q2's rows, with names that tell, and nothing to break ---------------------------


class Job(Styled, ReadOnly):
    """A job is known by what it does; django-q2's own name of it is four random words once it was run again."""

    list_filter = ()
    search_fields = ()
    actions: tuple[str, ...] = ()

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return tuple(self.fields)  # type: ignore[attr-defined]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id)  # type: ignore[attr-defined]
        title = {"subtitle": self.job(row)} if row else {}
        return super().change_view(request, object_id, form_url, {**title, **(extra_context or {})})  # type: ignore[misc,no-any-return]

    @admin.display(description="job")
    def job(self, row: Any) -> str:
        func, args = _called(row)
        name = func.rpartition(".")[2] or "unreadable"
        return f"{name} capture {args[0]}" if _capture_id(row) else " ".join([name, *map(str, args)])

    @admin.display(description="capture")
    def capture(self, row: Any) -> SafeString | str:
        capture_id = _capture_id(row)
        return _link("streams_capture", capture_id, f"#{capture_id}") if capture_id else NOTHING

    @admin.display(description="queued at", ordering="started")
    def queued_at(self, task: Task) -> str:
        return _moment(task.started)  # django-q2 writes there when the job was queued

    @admin.display(description="ended at", ordering="stopped")
    def ended_at(self, task: Task) -> str:
        return _moment(task.stopped)

    @admin.display(description="waited and took")
    def took(self, task: Task) -> str:
        return f"{task.time_taken():.1f} s"


class QueuedJobAdmin(Job, QueueAdmin):  # type: ignore[misc]  # they come without types
    """django-q2's `lock` is when the job was queued, and once a cluster has it when another one may have it."""

    list_display = ("job", "capture", "waiting_since", "taken_until")
    fields = ("job", "capture", "waiting_since", "taken_until", "task_id", "key")

    @admin.display(description="waiting since", ordering="lock")
    def waiting_since(self, row: OrmQ) -> str:
        return _moment(None if _is_taken(row) else row.lock)

    @admin.display(description="taken by a cluster until", ordering="lock")
    def taken_until(self, row: OrmQ) -> str:
        return _moment(row.lock if _is_taken(row) else None)


class FailedJobAdmin(Job, FailAdmin):  # type: ignore[misc]
    list_display = ("job", "capture", "ended_at", "attempt_count", "why")
    fields = ("job", "capture", "queued_at", "ended_at", "attempt_count", "cluster", "traceback")
    actions = ("run_again",)

    def has_run_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("django_q.change_failure"))

    @admin.action(permissions=["run"], description="Run the selected jobs again")
    def run_again(self, request: HttpRequest, tasks: QuerySet[Failure]) -> None:
        count = len(tasks)
        resubmit_task(self, request, tasks)
        words = "1 job is" if count == 1 else f"{count} jobs are"
        self.message_user(request, f"{words} queued again.", messages.SUCCESS)

    @admin.display(description="what went wrong")
    def why(self, task: Task) -> SafeString | str:
        words = str(task.result or "").partition(" : Traceback")[0]
        return format_html('<div class="error-words">{}</div>', words[:300]) if words else NOTHING

    @admin.display(description="in full")
    def traceback(self, task: Task) -> SafeString:
        return format_html('<pre class="traceback">{}</pre>', task.result or NOTHING)


class DoneJobAdmin(Job, TaskAdmin):  # type: ignore[misc]
    list_display = ("job", "capture", "queued_at", "ended_at", "took", "answer")
    fields = ("job", "capture", "queued_at", "ended_at", "took", "answer", "attempt_count", "cluster")

    @admin.display(description="answer")
    def answer(self, task: Task) -> str:
        return str(task.result or NOTHING)


class ScheduledJobAdmin(ScheduleAdmin):  # type: ignore[misc]
    """When it runs and whether may be changed: docs/operations.md, "What goes". The service makes the rows."""

    list_display = ("name", "schedule_type", "next_run", "repeats", "get_last_run", "get_success")
    list_display_links = ("name",)
    list_filter = ()
    fields = ("name", "func", "schedule_type", "next_run", "repeats")
    readonly_fields = ("name", "func", "schedule_type")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(AccessAttempt)
class FailedSignInAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """What went wrong lately at the sign-in page, and whom it locks out; to delete a row is to let him try again."""

    list_display = ("attempt_time", "ip_address", "username", "failures_since_start", "is_locked")
    fields = (*list_display, "user_agent")
    search_fields = ("ip_address", "username")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return admin.ModelAdmin.has_delete_permission(self, request, obj)

    @admin.display(description="locked", boolean=True)
    def is_locked(self, row: AccessAttempt) -> bool:
        return sign_in.is_locked(row)


def _register_jobs() -> None:
    """In place of django-q2's own, which its import registered; OrmQ only where the queue is in the database."""
    apps.get_app_config("django_q").verbose_name = "Jobs"
    apps.get_app_config("axes").verbose_name = "Sign-in"
    ours: dict[Any, Any] = {
        OrmQ: QueuedJobAdmin,
        Failure: FailedJobAdmin,
        Success: DoneJobAdmin,
        Schedule: ScheduledJobAdmin,
    }
    for model, model_admin in ours.items():
        if admin.site.is_registered(model):
            admin.site.unregister(model)
            admin.site.register(model, model_admin)


_register_jobs()


def _is_taken(row: OrmQ) -> bool:
    return row.lock is not None and row.lock > database.now()


def _called(row: Any) -> tuple[str, tuple[Any, ...]]:
    """Function and arguments of a job, queued or done."""
    called = row.task if isinstance(row, OrmQ) else {"func": row.func, "args": row.args}
    return str(called.get("func") or ""), tuple(called.get("args") or ())


def _capture_id(row: Any) -> int | None:
    """The capture that the job is about."""
    match _called(row):
        case ("streams.jobs.place" | "streams.jobs.finish", (int(capture_id),)):
            return capture_id
        case _:
            return None


# --- pieces ---------------------------------------------------------------------------------------


def _count(rows: QuerySet[Any], owner: str) -> Coalesce:
    """For each owner, and only for those that are shown: a join would count them all for each page."""
    return Coalesce(Subquery(rows.values(owner).annotate(n=Count("pk")).values("n")), 0)


def _moment(moment: datetime | None) -> str:
    """As the admin writes the moments that are fields."""
    return date_format(localtime(moment), "DATETIME_FORMAT") if moment else NOTHING


def _link(model: str, pk: int, words: object) -> SafeString:
    return format_html('<a href="{}">{}</a>', reverse(f"admin:{model}_change", args=[pk]), words)


def _picture(url: str, words: str, leads_to: str) -> SafeString:
    return format_html(
        '<a href="{}"><img class="small-picture" src="{}" alt="{}" loading="lazy"></a>', leads_to, url, words
    )
