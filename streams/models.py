"""What is known of streams, captures, frames and hosts: fields, constraints, rules of one row."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from .engine.address import MAX_NAME_LENGTH, MAX_URL_LENGTH, Address, join
from .engine.notices import words_of
from .fields import EncryptedTextField, ReportedCharField, ReportedCodesField

MIN_INTERVAL_S, MAX_INTERVAL_S = 0.1, 86_400.0
MAX_COUNT = 100
DEFAULT_INTERVAL_S, DEFAULT_COUNT = 1.0, 9


class Transport(models.TextChoices):
    TCP = "tcp", "TCP"
    UDP = "udp", "UDP"


class Status(models.TextChoices):
    """Of a stream. The engine's states are among them, by the same names."""

    IDLE = "idle"
    QUEUED = "queued"
    CONNECTING = "connecting"
    CAPTURING = "capturing"
    RECONNECTING = "reconnecting"
    STOPPING = "stopping"
    FAILED = "failed"


class Ending(models.TextChoices):
    """Why a capture is over."""

    STOPPED = "stopped"
    FAILED = "failed"


class Host(models.Model):
    """A machine or container that runs a supervisor. Silent for CLAIM_S, it has lost its claims.

    `steady_at`: since when its heartbeats come without a gap. `saved_at`: all that its recorders had sampled up to
    then is saved. `instance`: tells two machines of one name apart.
    """

    name = ReportedCharField(max_length=100, unique=True)
    slots = models.PositiveIntegerField()
    epoch = models.PositiveIntegerField(
        default=0, help_text="Grows with every supervisor that starts under the name."
    )
    instance = models.CharField(max_length=32, default="", editable=False)
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
    steady_at = models.DateTimeField()
    saved_at = models.DateTimeField()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class CaptureSettings(models.Model):
    """What a stream is told and each of its captures keeps."""

    interval_s = models.FloatField(
        "interval (s)",
        default=DEFAULT_INTERVAL_S,
        validators=[MinValueValidator(MIN_INTERVAL_S), MaxValueValidator(MAX_INTERVAL_S)],
        help_text="Seconds from one sample to the next.",
    )
    count = models.PositiveSmallIntegerField(
        default=DEFAULT_COUNT,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_COUNT)],
        help_text="How many frames are kept.",
    )
    transport = models.CharField(max_length=3, choices=Transport, default=Transport.TCP)

    class Meta:
        abstract = True


class Stream(CaptureSettings):
    """A feed that the user named. `url` holds no credential; `credentials` is what was taken out of it."""

    name = models.CharField(max_length=MAX_NAME_LENGTH, unique=True)
    url = models.CharField("URL", max_length=MAX_URL_LENGTH, unique=True)
    credentials = EncryptedTextField(blank=True, editable=False)
    verify_certificate = models.BooleanField(
        "verify the certificate",
        default=True,
        db_default=True,  # a website of the version before makes rows without it
        help_text="Of a camera by rtsps. Without it whoever is in between can read the password.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    status = models.CharField(max_length=12, choices=Status, default=Status.IDLE)
    status_at = models.DateTimeField(default=timezone.now)
    error_code = ReportedCharField("error", max_length=32, blank=True)
    error_text = ReportedCharField("last error", max_length=300, blank=True)
    attempt = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    notices = ReportedCodesField(
        max_length=100, blank=True, help_text="What is worth saying of the capture: codes, with commas between."
    )

    quirks = models.TextField(
        "learned",
        blank=True,
        editable=False,
        default="",
        db_default="",  # a website of the version before makes rows without it
        help_text="What was learned about the camera, as JSON. Forgotten when its address changes.",
    )

    newer_notices = models.CharField(
        max_length=100,
        blank=True,
        editable=False,
        default="",
        db_default="",  # as above
        help_text="Notices that the previous release does not know: its pages would fail on them.",
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def address(self) -> Address:
        return join(self.url, self.credentials)

    @property
    def notice_sentences(self) -> dict[str, str]:
        """Code to sentence."""
        return {code: words_of(code) for code in (*self.notices.split(","), *self.newer_notices.split(",")) if code}

    @property
    def notice_words(self) -> list[str]:
        """Each notice as one sentence."""
        return list(self.notice_sentences.values())


class Capture(CaptureSettings):
    """One run of a stream, from start to stop.

    `claimed_by` and `epoch` are the claim: every write about a capture in progress holds only while both are
    still the writer's. `host_name` stays when the claim is gone.
    """

    stream = models.ForeignKey(Stream, models.CASCADE, related_name="captures")
    started_at = models.DateTimeField(default=timezone.now)
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    ending = models.CharField("reason of ending", max_length=8, choices=Ending, blank=True)
    error_code = ReportedCharField("error", max_length=32, blank=True)
    error_text = ReportedCharField("last error", max_length=300, blank=True)

    claimed_by = models.ForeignKey(Host, models.SET_NULL, null=True, blank=True, related_name="captures")
    epoch = models.PositiveIntegerField(default=0)
    host_name = ReportedCharField("host", max_length=100, blank=True)

    samples = models.PositiveBigIntegerField(default=0)
    missed = models.PositiveBigIntegerField(default=0)
    rejected = models.PositiveBigIntegerField(
        default=0, help_text="Pictures that loss or damage made unfit to be samples."
    )
    repeated = models.PositiveBigIntegerField(default=0, help_text="Samples that were copies of another one.")
    connections = models.PositiveBigIntegerField(default=0)
    last_sample_at = models.DateTimeField(null=True, blank=True)
    late_p50_s = models.FloatField(
        "median lateness (s)", null=True, blank=True, help_text="Stream time from the due time to the sample."
    )
    late_p95_s = models.FloatField("95th percentile of lateness (s)", null=True, blank=True)
    grid = models.ImageField(upload_to="grids/", blank=True)

    class Meta:
        ordering = ("-started_at", "-id")
        constraints = (
            models.UniqueConstraint(
                fields=["stream"], condition=Q(finished_at__isnull=True), name="one_capture_in_progress"
            ),
            models.CheckConstraint(
                condition=Q(finished_at__isnull=True) | Q(claimed_by__isnull=True),
                name="a_finished_capture_is_not_claimed",
            ),
        )
        indexes = (
            models.Index(fields=["started_at", "id"], name="capture_by_time"),
            models.Index(fields=["id"], condition=Q(finished_at__isnull=True), name="capture_in_progress"),
        )

    def __str__(self) -> str:
        return f"{self.stream} #{self.pk}"

    @property
    def is_finished(self) -> bool:
        return self.finished_at is not None

    @property
    def has_service_error(self) -> bool:
        """True if the last error is about the service's files or a restore. All others are about the camera."""
        return self.error_code in ("picture_unreadable", "picture_lost", "no_grid", "restored")


class Frame(models.Model):
    """A sample on the leaderboard, saved. `score` is its brightness, 0 to 255."""

    capture = models.ForeignKey(Capture, models.CASCADE, related_name="frames")
    number = models.PositiveBigIntegerField(help_text="The how-manieth sample of the capture it was.")
    score = models.FloatField()
    captured_at = models.DateTimeField()
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    image = models.ImageField(upload_to="frames/")

    class Meta:
        ordering = ("capture", "-score", "number")
        constraints = (models.UniqueConstraint(fields=["capture", "number"], name="one_frame_per_sample"),)

    def __str__(self) -> str:
        return f"{self.capture} sample {self.number}"


class Timeline(models.Model):
    """How bright a capture was over its time: `streams.engine.timeline`, which reads and writes `data`.

    Beside the capture, not in it: up to 40 kB, which no list needs.
    """

    capture = models.OneToOneField(Capture, models.CASCADE, primary_key=True, related_name="timeline")
    data = models.TextField()

    def __str__(self) -> str:
        return f"{self.capture} timeline"
