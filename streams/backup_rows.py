"""Rows as JSON and back, field by field: what is stored is what is written, encrypted text as it lies in its column.

A new column of a model is in the next backup by itself. A backup from before the column gets its default.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db import connection, models
from django.db.models.functions import Cast
from django_q.models import Schedule

from .fields import EncryptedTextField, Sealed
from .models import Capture, Frame, Stream, Timeline

Row = dict[str, Any]
M = TypeVar("M", bound=models.Model)

# Migrations of these decide whether a backup can be restored.
APPS = ("admin", "auth", "contenttypes", "django_q", "streams")
# A schedule names a function that the job cluster calls, so only our own functions are taken from a file.
OUR_JOBS = "streams.jobs."
NUMBERED = (Stream, Capture, Frame)
"""Models whose ids are in addresses and signed links: a restore never lets an id be used again."""
BATCH = 200
_PICTURE = re.compile(
    r"frames/([0-9]+)/[0-9]+-[0-9a-f]{8}\.jpg|grids/([0-9]+)/[0-9a-f]{8}\.jpg|grids/([0-9]+)-[0-9a-f]{8}\.jpg",
    re.ASCII,
)


class BadRow(Exception):
    """The row cannot come from a backup; the text is one sentence."""


def is_picture_of(capture_id: int, name: object) -> bool:
    """Whether the service gives such names to the capture's pictures; nothing else is read or written."""
    found = _PICTURE.fullmatch(name) if isinstance(name, str) else None
    return found is not None and str(capture_id) in found.groups()


# --- reading --------------------------------------------------------------------------------------


def encode(row: Row) -> bytes:
    return json.dumps(row, default=_moment, ensure_ascii=False, separators=(",", ":")).encode()


def tables() -> Iterator[tuple[str, Iterable[Row]]]:
    """Yield all tables but captures, by the names of their parts, in the order in which they are restored."""
    yield "groups", _groups()
    yield "users", _users()
    yield "streams", _rows(Stream.objects.order_by("id"))
    yield "schedules", _rows(Schedule.objects.filter(func__startswith=OUR_JOBS).order_by("id"))
    yield "admin_log", _admin_log()


def captures(ids: Sequence[int]) -> Iterator[Row]:
    """Each with its frames and its timeline, in the order of the ids; those that are gone are left out."""
    found = {row["id"]: row for row in _rows(Capture.objects.filter(pk__in=ids))}
    timelines = dict(Timeline.objects.filter(pk__in=ids).values_list("pk", "data"))
    frames: dict[int, list[Row]] = {pk: [] for pk in found}
    for row in _rows(Frame.objects.filter(capture__in=ids).order_by("id")):
        frames.setdefault(row["capture_id"], []).append(row)
    for pk in ids:
        if pk in found:
            yield {"capture": found[pk], "timeline": timelines.get(pk), "frames": frames[pk]}


def _rows(query: "models.QuerySet[Any]") -> Iterator[Row]:
    fields = query.model._meta.concrete_fields
    sealed = {field.attname for field in fields if isinstance(field, EncryptedTextField)}
    plain = [field.attname for field in fields if field.attname not in sealed]
    stored = {f"stored_{name}": Cast(name, models.TextField()) for name in sealed}
    for row in query.values(*plain, **stored).iterator(chunk_size=BATCH):
        yield {name.removeprefix("stored_") if name in stored else name: value for name, value in row.items()}


def _groups() -> Iterator[Row]:
    for row in _rows(Group.objects.order_by("id")):
        yield row | {"permissions": _permissions(Permission.objects.filter(group=row["id"]))}


def _users() -> Iterator[Row]:
    for row in _rows(User.objects.order_by("id")):
        groups = Group.objects.filter(user=row["id"]).order_by("name").values_list("name", flat=True)
        rights = _permissions(Permission.objects.filter(user=row["id"]))
        yield row | {"groups": list(groups), "user_permissions": rights}


def _permissions(query: "models.QuerySet[Permission]") -> list[list[str]]:
    """Permissions by name: their ids differ between databases."""
    names = ("content_type__app_label", "content_type__model", "codename")
    return [list(row) for row in query.order_by(*names).values_list(*names)]


def _admin_log() -> Iterator[Row]:
    users = dict(User.objects.values_list("id", "username"))
    kinds = {kind.pk: [kind.app_label, kind.model] for kind in ContentType.objects.all()}
    for row in _rows(LogEntry.objects.order_by("id")):
        user, kind = users.get(row.pop("user_id")), kinds.get(row.pop("content_type_id"))
        yield row | {"user": user, "content_type": kind}


def last_ids() -> dict[str, int]:
    """The highest id that was ever given, also if its row is deleted."""
    found = {}
    for model in NUMBERED:
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = %s", [model._meta.db_table])
            else:
                cursor.execute(
                    "SELECT last_value FROM pg_sequences WHERE format('%%I.%%I', schemaname, sequencename) = %s",
                    [_sequence(model)],
                )
            row = cursor.fetchone()
        found[model._meta.model_name or ""] = (row and row[0]) or 0
    return found


def _moment(value: object) -> str:
    """With its microseconds: Django's own encoder drops them."""
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} in a row")


# --- writing --------------------------------------------------------------------------------------


def decode(line: bytes) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRow("It has a row that is no JSON.") from None
    if not isinstance(row, dict):
        raise BadRow("It has a row that is no object.")
    return row


def made(model: type[M], row: Mapping[str, Any], **others: Any) -> M:
    """The row as an object that is not saved. Raises BadRow for fields or values that the model does not have."""
    fields = {field.attname: field for field in model._meta.concrete_fields}
    if unknown := set(row) - set(fields):
        raise BadRow(f"A row of {model._meta.verbose_name_plural} has the unknown field {sorted(unknown)[0][:50]!r}.")
    missing = [
        name
        for name, field in fields.items()
        if name not in row and name not in others and not isinstance(field, models.AutoField)
        and not (field.has_default() or field.has_db_default() or field.null or field.blank)
    ]  # fmt: skip
    if missing:
        raise BadRow(f"A row of {model._meta.verbose_name_plural} has no {missing[0]}.")
    try:
        values = {name: _value(fields[name], value) for name, value in row.items()}
    except (ValidationError, ValueError, TypeError, OverflowError):
        raise BadRow(f"A row of {model._meta.verbose_name_plural} has a value that cannot be.") from None
    return model(**values, **others)


def _value(field: "models.Field[Any, Any]", value: object) -> Any:
    if isinstance(value, dict | list):
        raise TypeError(field.name)
    if isinstance(value, str) and "\0" in value:  # PostgreSQL takes none
        raise ValueError(field.name)
    if isinstance(field, EncryptedTextField):
        return Sealed(str(value)) if value else ""
    if isinstance(field, models.ForeignKey):
        return None if value is None else field.target_field.to_python(value)
    return None if value is None else field.to_python(value)


def check(table: str, row: Row) -> None:
    """Raises BadRow if `save` would."""
    own = dict(row)
    if table == "users":
        own.pop("groups", None)
    if table == "admin_log":
        own.pop("user", None)
        own.pop("content_type", None)
    own.pop(_RIGHTS.get(table, ""), None)
    others = {"user_id": 0} if table == "admin_log" else {}
    fresh = made(_MODELS[table], own, **others)
    if isinstance(fresh, Schedule) and not fresh.func.startswith(OUR_JOBS):
        raise BadRow("It has a schedule that calls what is no job of this service.")


def save(table: str, row: Row) -> None:
    """A row of another table than the streams'. Of an account or group that is there by that name it takes the place.

    Raises BadRow.
    """
    check(table, row)
    _SAVERS[table](dict(row))


def _save_group(row: Row) -> None:
    rights = row.pop("permissions", None)
    group = _in_place(made(Group, row), name=row.get("name"))
    group.permissions.set(_known_permissions(rights))


def _save_user(row: Row) -> None:
    rights, groups = row.pop("user_permissions", None), row.pop("groups", None)
    user = _in_place(made(User, row), username=row.get("username"))
    user.groups.set(Group.objects.filter(name__in=[str(name) for name in groups or []]))
    user.user_permissions.set(_known_permissions(rights))


def _save_schedule(row: Row) -> None:
    schedule = made(Schedule, row)
    Schedule.objects.filter(name=schedule.name).delete()
    schedule.pk = None
    schedule.save(force_insert=True)


def _save_log_entry(row: Row) -> None:
    user = User.objects.filter(username=row.pop("user", None)).first()
    app, model = row.pop("content_type", None) or ("", "")
    kind = ContentType.objects.filter(app_label=app, model=model).first()
    if user:
        row.pop("id", None)
        made(LogEntry, row, user_id=user.pk, content_type_id=kind and kind.pk).save(force_insert=True)


_MODELS: dict[str, type[models.Model]] = {
    "groups": Group,
    "users": User,
    "schedules": Schedule,
    "admin_log": LogEntry,
}
_SAVERS = {
    "groups": _save_group,
    "users": _save_user,
    "schedules": _save_schedule,
    "admin_log": _save_log_entry,
}
_RIGHTS = {"groups": "permissions", "users": "user_permissions"}


def _in_place(fresh: M, **key: Any) -> M:
    """Saved with the id of the row that has this key, or with its own, or with a free one."""
    model = type(fresh)
    known = model._default_manager.filter(**key).first()
    if known or model._default_manager.filter(pk=fresh.pk).exists():
        fresh.pk = known.pk if known else None
    fresh.save()
    return fresh


def _known_permissions(names: object) -> list[Permission]:
    """Those that this version has."""
    found = []
    for app, model, codename in names if isinstance(names, list) else []:
        query = Permission.objects.filter(content_type__app_label=app, content_type__model=model, codename=codename)
        found += list(query)
    return found


def keep_ids(last: Mapping[str, int]) -> None:
    """Set the sequences so that new rows never get an id that was used before."""
    for model in (*NUMBERED, Group, User, Schedule, LogEntry):
        least = int(last.get(model._meta.model_name or "", 0))
        highest = max(least, model._default_manager.aggregate(last=models.Max("pk"))["last"] or 0)
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                table = model._meta.db_table
                cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])
                cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [table, highest])
            elif highest:
                cursor.execute("SELECT setval(%s, %s)", [_sequence(model), highest])


def _sequence(model: type[models.Model]) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_serial_sequence(%s, 'id')", [model._meta.db_table])
        (name,) = cursor.fetchone()
    return str(name)
