"""A database's schema as it stands, and what of a change in it breaks code that was written before the change.

Read from the catalogs of SQLite and PostgreSQL, not from Django's models: what counts is what the database enforces.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

Read = Callable[[str], Sequence[Sequence[Any]]]
"""Runs one statement and returns its rows."""


@dataclass(frozen=True, slots=True)
class Column:
    """`default` is the database's own; a key that the database counts has one, too."""

    kind: str
    is_nullable: bool = False
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Unique:
    """Rows that match `condition` differ in at least one of the columns. The primary key is one."""

    columns: frozenset[str]
    condition: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """`on_delete`: what the database does with the row whose target is deleted; NO ACTION refuses."""

    column: str
    table: str
    on_delete: str = "NO ACTION"


@dataclass(frozen=True, slots=True)
class Table:
    columns: dict[str, Column]
    uniques: frozenset[Unique] = frozenset()
    checks: frozenset[str] = frozenset()
    references: frozenset[Reference] = frozenset()


Schema = dict[str, Table]


def new_columns(old: Schema, new: Schema) -> list[tuple[str, str]]:
    """Table and column, of tables that both have."""
    return [
        (name, column) for name in sorted(old.keys() & new) for column in new[name].columns.keys() - old[name].columns
    ]


# --- what breaks older code -----------------------------------------------------------------------


def breaks(old: Schema, new: Schema) -> list[str]:
    """A sentence for each thing in `new` that fails what code written for `old` may do."""
    found = [f"{name}: the table is gone" for name in sorted(old.keys() - new)]
    for name in sorted(old.keys() & new):
        found += [f"{name}{words}" for words in _table_breaks(old[name], new[name])]
    for name, table in sorted(new.items()):
        before = old[name].references if name in old else frozenset()
        for reference in sorted(table.references - before, key=str):
            if reference.table in old and reference.on_delete == "NO ACTION":
                found.append(f"{name}.{reference.column}: older code cannot delete a row of {reference.table}")
    return found


def _table_breaks(old: Table, new: Table) -> Iterator[str]:
    for name, was in old.columns.items():
        if name not in new.columns:
            yield f".{name}: the column is gone"
            continue
        now = new.columns[name]
        if not _holds_all(now.kind, was.kind):
            yield f".{name}: it was {was.kind} and is {now.kind}"
        if was.is_nullable and not now.is_nullable:
            yield f".{name}: it may not be NULL any more"
        if was.default is not None and now.default is None and not now.is_nullable:
            yield f".{name}: it has lost its default"
    for name in new.columns.keys() - old.columns:
        if not new.columns[name].is_nullable and new.columns[name].default is None:
            yield f".{name}: it is new, and the database has no default for it: db_default"
    for unique in new.uniques - old.uniques:
        implied = any(
            one.columns <= unique.columns and one.condition in ("", unique.condition) for one in old.uniques
        )
        if not implied and unique.columns & old.columns.keys():
            yield f": {_listed(unique.columns)} must be unique now{unique.condition and ' where '}{unique.condition}"
    for check in sorted(new.checks - old.checks):
        if any(re.search(rf"\b{re.escape(name)}\b", check) for name in old.columns):
            yield f": what was allowed is refused by CHECK ({check})"
    for reference in new.references - old.references:
        if reference.column in old.columns:
            yield f".{reference.column}: it must be a row of {reference.table} now"


_WIDER = {
    "smallint": {"integer", "bigint"},
    "smallint unsigned": {"integer unsigned", "bigint unsigned"},
    "integer": {"bigint"},
    "integer unsigned": {"bigint unsigned"},
}


def _holds_all(now: str, was: str) -> bool:
    """Whether the type `now` holds every value of the type `was`, as the same Python type."""
    if now == was or now in _WIDER.get(was, ()):
        return True
    lengths = [re.fullmatch(r"(?:varchar|character varying)\((\d+)\)", kind) for kind in (was, now)]
    if lengths[0] and lengths[1]:
        return int(lengths[0][1]) <= int(lengths[1][1])
    return bool(lengths[0]) and now == "text"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


# --- SQLite ---------------------------------------------------------------------------------------

_SQLITE_TABLES = "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_SQLITE_COLUMNS = """
SELECT m.name, c.name, lower(c.type), c."notnull", c.dflt_value, c.pk
  FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'
"""
_SQLITE_UNIQUES = """
SELECT m.name, i.name, coalesce(x.sql, ''), c.name
  FROM sqlite_master m JOIN pragma_index_list(m.name) i JOIN pragma_index_info(i.name) c
  LEFT JOIN sqlite_master x ON x.name = i.name
 WHERE m.type = 'table' AND i."unique"
"""
_SQLITE_REFERENCES = """
SELECT m.name, f."from", f."table", f.on_delete
  FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'
"""


def read_sqlite(read: Read) -> Schema:
    schema = {name: Table({}, checks=frozenset(_checks(sql))) for name, sql in read(_SQLITE_TABLES)}
    keys: dict[str, set[str]] = {name: set() for name in schema}
    for name, column, kind, is_filled, default, is_key in read(_SQLITE_COLUMNS):
        is_counted = is_key and kind == "integer"
        schema[name].columns[column] = Column(
            kind, not is_filled and not is_key, "counted" if is_counted else default
        )
        if is_key:
            keys[name].add(column)
    indexes: dict[tuple[str, str, str], set[str]] = {}
    for name, index, sql, column in read(_SQLITE_UNIQUES):
        indexes.setdefault((name, index, sql), set()).add(column)
    uniques = {name: {Unique(frozenset(key))} for name, key in keys.items() if key}
    for (name, _, sql), columns in indexes.items():
        uniques.setdefault(name, set()).add(Unique(frozenset(columns), sql.partition(" WHERE ")[2].replace('"', "")))
    references: dict[str, set[Reference]] = {}
    for name, *reference in read(_SQLITE_REFERENCES):
        references.setdefault(name, set()).add(Reference(*reference))
    return {
        name: replace(table, uniques=frozenset(uniques.get(name, ())), references=frozenset(references.get(name, ())))
        for name, table in schema.items()
    }


def _checks(sql: str) -> Iterator[str]:
    """The conditions in a CREATE TABLE; they may have parentheses inside."""
    for match in re.finditer(r"\bCHECK \(", sql):
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(sql[end], 0)
            end += 1
        yield sql[match.end() : end - 1].replace('"', "").strip()


# --- PostgreSQL -----------------------------------------------------------------------------------

_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
       CASE WHEN a.attidentity <> '' THEN 'counted' ELSE pg_get_expr(d.adbin, d.adrelid) END
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d
    ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY c.relname, a.attnum
"""
_UNIQUES = """
SELECT c.relname, pg_get_expr(i.indpred, i.indrelid),
       ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = ANY (i.indkey))::text[]
  FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
 WHERE i.indisunique AND c.relnamespace = current_schema()::regnamespace
"""
_CONSTRAINTS = """
SELECT c.relname, o.contype::text, pg_get_constraintdef(o.oid)
  FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
 WHERE o.contype IN ('c', 'f') AND c.relnamespace = current_schema()::regnamespace
"""
_REFERENCE = re.compile(
    r'FOREIGN KEY \("?(\w+)"?\) REFERENCES "?(\w+)"?\(\w+\)(?: ON DELETE (CASCADE|SET NULL|SET DEFAULT))?'
)


def read_postgresql(read: Read) -> Schema:
    columns: dict[str, dict[str, Column]] = {}
    for table, column, kind, is_nullable, default in read(_COLUMNS):
        columns.setdefault(table, {})[column] = Column(kind, is_nullable, default)
    uniques: dict[str, set[Unique]] = {table: set() for table in columns}
    for table, condition, names in read(_UNIQUES):
        uniques[table].add(Unique(frozenset(names), condition or ""))
    checks: dict[str, set[str]] = {table: set() for table in columns}
    references: dict[str, set[Reference]] = {table: set() for table in columns}
    for table, kind, definition in read(_CONSTRAINTS):
        if kind == "c":
            checks[table].add(definition.removeprefix("CHECK (").removesuffix(")"))
            continue
        found = _REFERENCE.match(definition)
        assert found, definition
        references[table].add(Reference(found[1], found[2], found[3] or "NO ACTION"))
    return {
        table: Table(
            columns[table], frozenset(uniques[table]), frozenset(checks[table]), frozenset(references[table])
        )
        for table in columns
    }
