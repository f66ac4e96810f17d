"""Values for columns that no test knows by name: each new one of a release is found and filled by itself.

usage: python -m tests.other_values TABLE.COLUMN...
"""

import sys
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import models


def fill(columns: Iterable[tuple[str, str]]) -> None:
    """Write a value that is not the default into these columns of all rows; each table must have one."""
    from django.apps import apps

    known = {model._meta.db_table: model for model in apps.get_models(include_auto_created=True)}
    for table, column in columns:
        model = known[table]
        (field,) = (field for field in model._meta.concrete_fields if field.column == column)
        rows = model._base_manager.all()
        assert rows, f"{table} has no row to show what older code does to {column}"
        for number, row in enumerate(rows):
            model._base_manager.filter(pk=row.pk).update(**{field.attname: other_value(field, number)})


def other_value(field: "models.Field[Any, Any]", number: int = 0) -> Any:
    """Another one for each number, where the field's type has so many."""
    default = field.default if field.has_default() else getattr(field, "db_default", None)
    if field.choices:
        return next(value for value, _ in field.flatchoices if value not in (default, ""))
    if isinstance(field, models.ForeignKey):
        target = field.remote_field.model._base_manager.first()
        assert target, f"{field} needs a row that it refers to"
        return target.pk
    if isinstance(field, models.BooleanField):
        return default is not True
    if isinstance(field, models.IntegerField | models.FloatField):
        return (default if isinstance(default, int | float) else 0) + 1 + number
    for kind, value in _VALUES:
        if isinstance(field, kind):
            return value(number)
    assert isinstance(field, models.CharField | models.TextField | models.FileField), f"no value for {field!r}"
    return f"other-{number}"[: field.max_length]


_VALUES: tuple[tuple[type["models.Field[Any, Any]"], Any], ...] = (
    (models.DateTimeField, lambda number: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC) + timedelta(hours=number)),
    (models.DateField, lambda number: date(2026, 1, 2) + timedelta(days=number)),
    (models.DurationField, lambda number: timedelta(seconds=1 + number)),
    (models.DecimalField, lambda number: 1 + number),
    (models.JSONField, lambda number: {"other": number}),
    (models.BinaryField, lambda number: b"other-%d" % number),
    (models.UUIDField, lambda number: UUID(int=1 + number)),
)


if __name__ == "__main__":
    import django

    django.setup()
    fill([(table, column) for table, _, column in (word.partition(".") for word in sys.argv[1:])])
