"""From environment variables to Django's settings. docs/operations.md has the table of them.

A variable `X` can also be read from the file that `X_FILE` names. Every wrong value is told in one message.
"""

import importlib.metadata
import importlib.util
import logging
import re
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from environs import FileAwareEnv, ValidationError, validate

from streams.engine import masking
from streams.engine.address import parse_networks, parse_ports

from . import json_log, keys, logs


class Environment(FileAwareEnv):
    """A file that cannot be read is told with the other mistakes, not before them."""

    def _get_value(self, env_key: str, default: Any) -> Any:
        try:
            return super()._get_value(env_key, default)
        except (ValueError, OSError) as error:
            self._errors[f"{env_key}_FILE"].append(str(error))
            return default


def _are_fernet_keys(keys: list[str]) -> None:
    for key in keys:
        try:
            Fernet(key)
        except ValueError:
            raise ValidationError("Each must be a Fernet key: 32 bytes in URL-safe base64.") from None


def _are_tokens(tokens: list[str]) -> None:
    """Nothing of them is told."""
    if not tokens:
        raise ValidationError("It is empty, and everybody would be let in: set a token, or leave the variable out.")
    if not all(re.fullmatch(rf"[!-~]{{{TOKEN_LENGTH},}}", token.strip()) for token in tokens):
        raise ValidationError(
            f"Each token must be {TOKEN_LENGTH} or more letters, digits and signs of ASCII, without spaces; commas "
            "stand between tokens."
        )


def _is_printable(text: str) -> None:
    """Bytes that are no UTF-8 come as halves of surrogate pairs, which no database takes."""
    if not text.isprintable():
        raise ValidationError("It must be printable text in UTF-8.")


def _are_networks(text: str) -> None:
    try:
        parse_networks(text)
    except ValueError as error:
        raise ValidationError(str(error)) from None


def _are_ports(text: str) -> None:
    try:
        parse_ports(text)
    except ValueError as error:
        raise ValidationError(str(error)) from None


def _is_http_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_one = False
    if url and not is_one:
        raise ValidationError("It must be a URL: http://host:port or https://host:port.")


def _is_redis_url(url: str) -> None:
    """Nothing of the URL is told: it may hold a password."""
    if not url:
        return
    if url.partition("://")[0] not in ("redis", "rediss", "unix"):
        raise ValidationError("It must begin with redis://, rediss:// or unix://.")
    from redis import ConnectionPool  # not needed without Redis

    try:
        ConnectionPool.from_url(url)
    except ValueError:
        raise ValidationError("It cannot be read as a URL: #, / and @ in a password are %23, %2F and %40.") from None


def _are_authorities(file: str) -> None:
    if not file:
        return
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as error:
        raise ValidationError(f"It must name a file of certificates in PEM ({error.strerror or error}).") from None


BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment(eager=False, strip_whitespace=True)
TOKEN_LENGTH = 20

# First, so that what is wrong with the others is a line of this format, too.
LOG_FORMAT = env.str("LOG_FORMAT", "text", validate=validate.OneOf(["text", "json"]))
if LOG_FORMAT == "json":
    json_log.guard()

# --- where data goes ---------------------------------------------------------------------------------------
DATA_DIR = env.path("DATA_DIR", BASE_DIR / "data").resolve()
MEDIA_ROOT = env.path("MEDIA_ROOT", BASE_DIR / "media").resolve()
MEDIA_URL = "media/"  # never routed: pictures are served by views
DATABASES = {"default": env.dj_db_url("DATABASE_URL", f"sqlite:///{DATA_DIR / 'db.sqlite3'}")}
PORT = env.int("PORT", 8000, validate=validate.Range(1, 65535))
HOST = env.str("HOST", "127.0.0.1")
# Requests that one process of the website answers at a time; scripts/serve.sh starts the threads for them.
WEB_THREADS = env.int("WEB_THREADS", 16, validate=validate.Range(2, 256))
_redis_url = env.str("REDIS_URL", "", validate=_is_redis_url)
# Pictures in an S3-compatible store in place of MEDIA_ROOT. Without keys here boto3 looks where it always does:
# AWS_ACCESS_KEY_ID, its own files, the machine's role.
S3_BUCKET = env.str("S3_BUCKET", "")
_s3_options = {
    "bucket_name": S3_BUCKET,
    "endpoint_url": env.str("S3_ENDPOINT_URL", "", validate=_is_http_url),
    "region_name": env.str("S3_REGION", "") or None,
    "access_key": env.str("S3_ACCESS_KEY_ID", "") or None,
    "secret_key": env.str("S3_SECRET_ACCESS_KEY", "") or None,
    "location": env.str("S3_PREFIX", "").strip("/"),
}

# --- capturing ---------------------------------------------------------------------------------------------
CAPTURE_HOST_NAME = env.str(
    "CAPTURE_HOST_NAME", socket.gethostname(), validate=[validate.Length(1, 100), _is_printable]
)
CAPTURE_SLOTS = env.int("CAPTURE_SLOTS", 64, validate=validate.Range(0, 10_000))
# What one recorder may take beside what all share: docs/engine.md has what takes how much.
CAPTURE_MEMORY_MB = env.int("CAPTURE_MEMORY_MB", 1024, validate=validate.Range(64, 1_000_000))
CAPTURE_MAX_STREAMS = env.int("CAPTURE_MAX_STREAMS", 1000, validate=validate.Range(0, 1_000_000))
CAPTURE_KEEP_DAYS = env.float("CAPTURE_KEEP_DAYS", 0.0, validate=validate.Range(0, 36_500))
_allowed_networks = env.str("CAPTURE_ALLOWED_NETWORKS", "", validate=_are_networks)
_redirect_ports = env.str("CAPTURE_REDIRECT_PORTS", "", validate=_are_ports)
env.str("SSL_CERT_FILE", "", validate=_are_authorities)  # OpenSSL reads it by itself, and trusts nobody if it cannot

# --- security ----------------------------------------------------------------------------------------------
DEBUG = env.bool("DEBUG", False)
# This machine's own names always work: health checks and curl on the host use them.
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", socket.gethostname(), *env.list("ALLOWED_HOSTS", [])]
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", [])
HTTPS = env.bool("HTTPS", False)
LOG_LEVEL = env.str("LOG_LEVEL", "INFO", validate=validate.OneOf(list(logging.getLevelNamesMapping())))
_secret_key = env.str("SECRET_KEY", "")
_former_keys: list[str] = env.list("SECRET_KEY_FALLBACKS", [])
_api_tokens: list[str] | None = env.list("API_TOKEN", [], validate=_are_tokens)
_credentials_keys: list[str] = env.list("CREDENTIALS_KEYS", [], validate=_are_fernet_keys)
env.seal()

API_TOKENS = [token.strip() for token in _api_tokens or []]
CAPTURE_REDIRECT_PORTS = parse_ports(_redirect_ports)
CAPTURE_ALLOWED_NETWORKS = parse_networks(_allowed_networks)
SECRET_KEY = _secret_key or keys.secret_key(DATA_DIR)
# What an earlier key has signed is still read: sessions, links to pictures.
SECRET_KEY_FALLBACKS = [key.strip() for key in _former_keys]
CREDENTIALS_KEYS = _credentials_keys or [keys.credentials_key(DATA_DIR)]
logs.guard(LOG_FORMAT == "json")
masking.keep([SECRET_KEY, *SECRET_KEY_FALLBACKS, *CREDENTIALS_KEYS, *API_TOKENS])
masking.keep([DATABASES["default"].get("PASSWORD") or "", _s3_options["secret_key"] or ""])
masking.keep([unquote(urlsplit(_redis_url).password or "")])
DEFAULT_EXCEPTION_REPORTER = "rtspsite.faults.Reporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "rtspsite.faults.Filter"

if S3_BUCKET and not importlib.util.find_spec("storages"):
    raise ImproperlyConfigured("S3_BUCKET is set, which needs django-storages: pip install -r requirements-s3.txt")
STORAGES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
if S3_BUCKET:
    STORAGES["default"] = {"BACKEND": "rtspsite.object_store.ObjectStore", "OPTIONS": _s3_options}

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
# Health checks and Prometheus ask the website itself, not the proxy in front.
SECURE_REDIRECT_EXEMPT = ["^livez$", "^readyz$", "^metrics$"]
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# A form of /start is an address and six small fields.
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 100
FILE_UPLOAD_HANDLERS = ["rtspsite.uploads.NoFiles"]
# Pictures are shown by the service alone; other users of the machine do not look at what a camera sees.
FILE_UPLOAD_PERMISSIONS = 0o600
FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o700

# --- Django ------------------------------------------------------------------------------------------------
ROOT_URLCONF = "rtspsite.urls"
CSRF_FAILURE_VIEW = "streams.pages.csrf_failed"
LOGIN_REDIRECT_URL = "index"  # where the sign-in page leads that was given no address of ours
WSGI_APPLICATION = "rtspsite.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# The files of its docs page; not the app, which each process would load, those without pages too: 0.3 s and 8 MB.
NINJA_DIR = Path(str(importlib.metadata.distribution("django-ninja").locate_file("ninja")))
INSTALLED_APPS = [
    "streams",  # before staticfiles: it has its own runserver
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "django_q",
    "axes",
]
MIDDLEWARE = [
    "streams.middleware.SecureHeaders",  # outermost, as the next: for all that follow
    "streams.middleware.Head",
    "streams.middleware.Capacity",
    "streams.middleware.NeedsHost",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "streams.middleware.NoNul",
    "streams.middleware.Guard",
    "django.middleware.csrf.CsrfViewMiddleware",  # after the guard: who may not come in is told that
    "axes.middleware.AxesMiddleware",  # innermost: it answers in place of a view that refused a password too often
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates", NINJA_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "streams.access.visitor",
            ]
        },
    }
]
# Guessing passwords at the sign-in page: streams/sign_in.py counts by address and by address and user.
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AXES_HANDLER = "streams.sign_in.Handler"
AXES_CLIENT_IP_CALLABLE = "streams.sign_in.address_of"
AXES_LOCKOUT_CALLABLE = "streams.sign_in.locked_out"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"], "ip_address"]
AXES_FAILURE_LIMIT = 5  # of one user from one address; of one address four times as many
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_DISABLE_ACCESS_LOG = True  # a line in the log in place of a row for ever
AXES_ENABLE_ADMIN = False  # streams/admin.py shows what is locked
AXES_VERBOSE = False
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
APPEND_SLASH = False  # /start and /stop have no trailing slash; a redirect would drop the body
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
STATIC_URL = "static/"
STATICFILES_DIRS = [NINJA_DIR / "static"]
WHITENOISE_ALLOW_ALL_ORIGINS = False
WHITENOISE_USE_FINDERS = True  # no collectstatic: the admin's own files are all there is

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Measured with a hundred writers: with Django's defaults one web request in twelve ended in
    # "database is locked", with these none.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;",
    }
else:
    # Each request gives its connection back. Kept for a minute, the idle ones of 16 threads left a supervisor none. A
    # new one costs 4 ms of a core in the website; the supervisor and the job cluster keep one each.
    DATABASES["default"] |= {"CONN_MAX_AGE": 0}

if DATABASES["default"]["ENGINE"].endswith("postgresql"):
    # A server that vanished without a word is told within seconds; the kernel by itself waits for a quarter of an
    # hour. What the URL says goes before.
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 5,  # s
        "tcp_user_timeout": 10_000,  # ms
        "keepalives_idle": 10,  # s, as the next
        "keepalives_interval": 3,
        "keepalives_count": 3,
    } | DATABASES["default"].get("OPTIONS", {})

# --- jobs: short nudges; streams/checks.py holds these numbers to the reasons in docs/operations.md ---------
Q_CLUSTER: dict[str, Any] = {
    "name": "rtspsite",
    "workers": 2,
    "queue_limit": 2,  # not below workers: a stop could hang
    "bulk": 1,
    "poll": 0.2,
    # A grid takes far less than a second; the slowest thing is a store of pictures that does not answer.
    "timeout": 60,
    # From the moment the pusher takes a task: those that run and those taken before it come first, 3 x 60 s.
    "retry": 300,
    "max_attempts": 3,  # 0 would be for ever
    "recycle": 50,
    "catch_up": False,
    "save_limit": 100,
    "ack_failures": True,
    "ALT_CLUSTERS": {},
}
if _redis_url:
    Q_CLUSTER |= {"broker_class": "streams.broker.Redis", "redis": _redis_url}
else:
    Q_CLUSTER |= {"broker_class": "streams.broker.Orm", "orm": "default"}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "rtspsite.json_log.JSONLines"}
        if LOG_FORMAT == "json"
        else {"()": "rtspsite.logs.Masked", "fmt": "%(asctime)s %(levelname)s %(message)s"}
    },
    "filters": {
        "without_query": {"()": "rtspsite.logs.WithoutQuery"},
        "refused": {"()": "rtspsite.logs.Refused"},
        "database": {"()": "rtspsite.logs.WithoutDatabaseTraceback"},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["refused"]},
        "access": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["without_query"]},
    },
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "streams": {"level": LOG_LEVEL},
        "django.server": {"handlers": ["access"], "level": "INFO", "propagate": False},
        "django-q": {"level": "WARNING", "filters": ["database"]},
        # What is done after a commit and fails: on a full disk a job that cannot be queued.
        "django.db.backends.base": {"level": "WARNING", "filters": ["database"]},
        "axes": {"level": "ERROR"},  # streams/sign_in.py says what happens
        "django.request": {"level": "ERROR"},  # wrong input is answered, not logged
        "django.security.csrf": {"level": "ERROR"},  # nor is a POST to what takes none: anybody can send it all day
    },
}
