"""History: what was captured, when, and why it ended. What is over is read-only."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from . import queries, services
from .engine.errors import CaptureError
from .models import Capture, Frame, Host, Stream

THUMBNAIL_PX = 160
NOTHING = "-"


class ReadOnly:
    """Rows that the service writes and people read."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Stream)
class StreamAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "status", "last_error", "captures_link", "interval_s", "count", "url", "status_at")
    list_filter = ("status", "error_code")
    search_fields = ("name", "url")
    actions = ("start", "stop")
    fields = (
        "name",
        "url",
        "interval_s",
        "count",
        "transport",
        "status",
        "status_at",
        "notices_shown",
        "last_error",
        "attempt",
        "next_attempt_at",
        "created_at",
        "captures_link",
    )
    readonly_fields = (
        "name",
        "url",
        "status",
        "status_at",
        "notices_shown",
        "last_error",
        "attempt",
        "next_attempt_at",
        "created_at",
        "captures_link",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Stream]:
        streams: QuerySet[Stream] = super().get_queryset(request)
        return streams.annotate(capture_count=Count("captures"))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # /start makes streams: it takes the address apart and hides its credentials

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, stream: Stream, form: Any, change: bool) -> None:
        stream.save(update_fields=form.changed_data)  # the supervisor writes the rest meanwhile

    @admin.display(description="last error", ordering="error_code")
    def last_error(self, stream: Stream) -> SafeString | str:
        if not stream.error_code:
            return NOTHING
        text = f"{stream.error_code}: {stream.error_text}"
        return format_html('<div style="min-width:16rem">{}</div>', text)

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
                self.message_user(request, f"{stream.name}: {error}", messages.ERROR)
                continue
            words = "started" if started.is_new else "is already running"
            self.message_user(request, f"{stream.name} {words}.", messages.SUCCESS)

    @admin.action(permissions=["change"], description="Stop capturing the selected streams")
    def stop(self, request: HttpRequest, streams: QuerySet[Stream]) -> None:
        for stream in streams:
            capture = services.stop(stream)
            if capture is None or capture.is_finished:
                self.message_user(request, f"{stream.name} is not running.", messages.WARNING)
            else:
                self.message_user(request, f"{stream.name} is being stopped.", messages.SUCCESS)


class FrameInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = Frame
    fields = ("rank", "picture", "score_shown", "captured_at", "number", "size")
    readonly_fields = fields
    ordering = ("-score", "number")
    verbose_name_plural = "frames, best first"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Frame]:
        return queries.with_rank(super().get_queryset(request).select_related("capture__stream"))

    def rank(self, frame: Frame) -> int:
        rank: int = frame.rank  # type: ignore[attr-defined]
        return rank

    def picture(self, frame: Frame) -> SafeString:
        url = reverse("frame", args=[frame.pk])
        return _picture(url, f"Sample {frame.number} of {frame.capture.stream}")

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


@admin.register(Capture)
class CaptureAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        "id",
        "grid_small",
        "stream",
        "state",
        "frames_kept",
        "started_at",
        "finished_at",
        "samples",
        "reason",
        "host_name",
    )
    list_display_links = ("id", "grid_small")
    list_filter = (StateFilter, ("stream", admin.RelatedOnlyFieldListFilter), "ending", "error_code", "started_at")
    date_hierarchy = "started_at"
    search_fields = ("stream__name", "stream__url")
    list_select_related = ("stream",)
    inlines = (FrameInline,)
    fields = (
        "stream",
        "grid_large",
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
        return captures.select_related("stream").annotate(frame_count=Count("frames"))

    @admin.display(description="grid")
    def grid_small(self, capture: Capture) -> SafeString | str:
        return _picture(reverse("grid", args=[capture.pk]), f"Grid of {capture}") if capture.grid else NOTHING

    @admin.display(description="grid")
    def grid_large(self, capture: Capture) -> SafeString | str:
        if not capture.grid:
            return NOTHING
        url = reverse("grid", args=[capture.pk])
        return format_html(
            '<a href="{0}"><img src="{0}" alt="Grid of {1}" style="max-width:100%;max-height:60vh"></a>', url, capture
        )

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
    list_display = ("name", "slots", "started_at", "heartbeat_at")


def _picture(url: str, words: str) -> SafeString:
    return format_html(
        '<img src="{}" alt="{}" loading="lazy" style="width:{}px;height:auto;display:block">',
        url,
        words,
        THUMBNAIL_PX,
    )
