"""The way from this release's schema back to the previous one and forward again, and what the two have in common.

Older code runs on the new schema, so nothing may be gone or stricter. tests/e2e/test_upgrade.py runs that code.
"""

import re
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import NOT_PROVIDED

from streams.models import Timeline
from tests import previous
from tests.other_values import other_value
from tests.schema import Schema, breaks, new_columns, read_postgresql, read_sqlite
from tests.streams.builders import make_capture, make_claim, make_finished, make_host

APP = "streams"
Rows = dict[str, list[dict[str, Any]]]


def read(statement: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def read_schema() -> Schema:
    return read_postgresql(read) if connection.vendor == "postgresql" else read_sqlite(read)


# --- back and forward -----------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_it_goes_back_to_the_previous_release_and_forward_again_with_all_rows() -> None:
    known, all_of_them = previous.migrations(APP), names_of_all()
    assert set(known) < set(all_of_them), "each migration of the previous release stays, and one at least is new"
    make_rows()
    new, before = read_schema(), rows_of(read_schema())
    try:
        migrate(known[-1])
        old, meanwhile = read_schema(), rows_of(read_schema())
        assert sorted(name for app, name in MigrationRecorder(connection).applied_migrations() if app == APP) == known
        assert not new_columns(new, old)
    finally:
        migrate(all_of_them[-1])
    after = rows_of(read_schema())
    assert meanwhile == common(before, old)
    assert common(after, old) == meanwhile
    assert read_schema() == new
    assert breaks(old, new) == []
    for table, column in new_columns(old, new):
        assert before[table] != after[table], f"{table}.{column} had its default before: nothing was shown"


def test_the_documented_way_back_leads_to_the_previous_release() -> None:
    documented = re.findall(r"manage\.py migrate (\w+) (\w+)", (previous.ROOT / "docs/operations.md").read_text())
    assert documented == [(APP, previous.migrations(APP)[-1])]


def names_of_all() -> list[str]:
    return sorted(name for app, name in MigrationExecutor(connection).loader.graph.nodes if app == APP)


def migrate(name: str) -> None:
    MigrationExecutor(connection).migrate([(APP, name)])


def make_rows() -> None:
    """In all tables of the app, with other values than the defaults wherever a row may have any."""
    finished = make_finished("rtsp://user:secret@camera.example/one")
    make_claim(make_capture("rtsp://camera.example/two"), make_host())
    Timeline.objects.create(capture=finished, data="{}")
    for model in apps.get_app_config(APP).get_models():
        row = model._base_manager.order_by("pk").first()
        assert row, f"{model} has no row to lose: make one here"
        for field in model._meta.concrete_fields:
            may_be_any = field.null or field.has_default() or field.db_default is not NOT_PROVIDED
            if may_be_any and not (field.is_relation or field.unique):
                model._base_manager.filter(pk=row.pk).update(**{field.attname: other_value(field)})


def rows_of(schema: Schema) -> Rows:
    """Of all tables but the one in which migrations are noted."""
    return {
        name: [
            dict(zip(table.columns, row, strict=True))
            for row in read(f'SELECT {_quoted(table.columns)} FROM "{name}" ORDER BY {_quoted(table.columns)}')  # noqa: S608
        ]
        for name, table in schema.items()
        if name != "django_migrations"
    }


def common(rows: Rows, schema: Schema) -> Rows:
    """What of the rows the schema has room for."""
    return {
        name: [{column: row[column] for column in table.columns} for row in rows[name]]
        for name, table in schema.items()
        if name in rows
    }


def _quoted(columns: Any) -> str:
    return ", ".join(f'"{column}"' for column in columns)


# --- what breaks older code -----------------------------------------------------------------------

BEFORE = """
CREATE TABLE upgrade_target (id integer PRIMARY KEY, name varchar(10) NOT NULL);
CREATE TABLE upgrade_source (
    id integer PRIMARY KEY, name varchar(10) NOT NULL, words varchar(10), size integer NOT NULL DEFAULT 1,
    CHECK (size >= 0)
);
CREATE UNIQUE INDEX upgrade_name ON upgrade_source (name);
"""


@pytest.mark.parametrize(
    ("was", "now", "sentences"),
    [
        ("words varchar(10)", "words varchar(10), more integer", []),
        ("words varchar(10)", "words varchar(10), more integer NOT NULL DEFAULT 0 CHECK (more >= 0)", []),
        (
            "words varchar(10)",
            "words varchar(10), more integer NOT NULL",
            ["upgrade_source.more: it is new, and the database has no default for it: db_default"],
        ),
        ("words varchar(10)", "words varchar(20)", []),
        ("words varchar(10)", "words text", []),
        ("words varchar(10)", "words varchar(9)", ["upgrade_source.words: it was varchar(10) and is varchar(9)"]),
        ("words varchar(10)", "words integer", ["upgrade_source.words: it was varchar(10) and is integer"]),
        ("words varchar(10)", "words varchar(10) NOT NULL", ["upgrade_source.words: it may not be NULL any more"]),
        ("words varchar(10), ", "", ["upgrade_source.words: the column is gone"]),
        ("size integer NOT NULL", "size integer", []),
        ("size integer", "size bigint", []),
        ("NOT NULL DEFAULT 1", "NOT NULL", ["upgrade_source.size: it has lost its default"]),
        (
            "CHECK (size >= 0)",
            "CHECK (size > 0)",
            ["upgrade_source: what was allowed is refused by CHECK (size > 0)"],
        ),
        ("CREATE UNIQUE INDEX upgrade_name ON upgrade_source (name);", "", []),
        ("upgrade_source (name);", "upgrade_source (name, size);", []),
        (
            "upgrade_source (name);",
            "upgrade_source (name); CREATE UNIQUE INDEX upgrade_2 ON upgrade_source (words) WHERE size = 1;",
            ["upgrade_source: words must be unique now where size = 1"],
        ),
        (
            "size integer NOT NULL",
            "size integer REFERENCES upgrade_target (id) ON DELETE CASCADE NOT NULL",
            ["upgrade_source.size: it must be a row of upgrade_target now"],
        ),
        (
            "words varchar(10)",
            "words varchar(10), more integer REFERENCES upgrade_target (id)",
            ["upgrade_source.more: older code cannot delete a row of upgrade_target"],
        ),
        (
            "words varchar(10)",
            "words varchar(10), more integer REFERENCES upgrade_target (id) ON DELETE SET NULL",
            [],
        ),
        (
            "CREATE UNIQUE INDEX",
            "CREATE TABLE upgrade_new (id integer PRIMARY KEY REFERENCES upgrade_target (id)); CREATE UNIQUE INDEX",
            ["upgrade_new.id: older code cannot delete a row of upgrade_target"],
        ),
        (
            BEFORE,
            "CREATE TABLE upgrade_target (id integer PRIMARY KEY, name varchar(10) NOT NULL);",
            ["upgrade_source: the table is gone"],
        ),
    ],
)
@pytest.mark.django_db
def test_what_breaks_older_code_is_said(was: str, now: str, sentences: list[str]) -> None:
    assert was in BEFORE
    old, new = schema_of(BEFORE), schema_of(BEFORE.replace(was, now))
    assert old != new
    assert [_in_sqlite_words(words) for words in breaks(old, new)] == sentences


def _in_sqlite_words(words: str) -> str:
    """PostgreSQL writes types and conditions in its own way."""
    words = words.replace("character varying", "varchar").replace("CHECK ((size > 0))", "CHECK (size > 0)")
    return words.replace("where (size = 1)", "where size = 1")


def schema_of(statements: str) -> Schema:
    """Of these tables beside the app's; nothing of them stays."""
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT upgrade")
        for statement in filter(str.strip, statements.split(";")):
            cursor.execute(statement)
        schema = read_schema()
        cursor.execute("ROLLBACK TO SAVEPOINT upgrade")
    return schema
