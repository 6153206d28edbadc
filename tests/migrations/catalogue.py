"""Everything a database says of its schema, in an order and a spelling of our own, so that two can be compared."""

from typing import Any

from sqlalchemy import Connection, create_engine, inspect, text

Catalogue = dict[str, Any]

POSTGRESQL = {
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace",
    "triggers": "SELECT pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger WHERE NOT tgisinternal",
    "functions": "SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "columns": "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default,"
    " is_generated, generation_expression FROM information_schema.columns WHERE table_schema = 'public'",
}
SQLITE = {
    "indexes": "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'index'",
    "triggers": "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger'",
    "views": "SELECT name, sql FROM sqlite_master WHERE type = 'view'",
}


def of(url: str) -> Catalogue:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = _objects(connection)
        if connection.dialect.name == "sqlite":
            found |= _sqlite_tables(connection)
    engine.dispose()
    return found


def _objects(connection: Connection) -> Catalogue:
    queries = SQLITE if connection.dialect.name == "sqlite" else POSTGRESQL
    return {
        name: sorted(
            squeezed(tuple(row)) for row in connection.execute(text(query)) if "alembic_version" not in str(row)
        )
        for name, query in queries.items()
    }


def _sqlite_tables(connection: Connection) -> Catalogue:
    """Each table as the set of its parts: SQLite keeps the words of its making, whose order does not matter."""
    tables = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'")).all()
    inspector = inspect(connection)
    found: Catalogue = {}
    for name, sql in tables:
        if name in ("alembic_version", "sqlite_sequence"):
            continue
        body = sql[sql.index("(") + 1 : sql.rindex(")")]
        found[f"table {name}"] = sorted(squeezed(part) for part in _parts(body) if part.strip())
        found[f"columns of {name}"] = sorted(
            (column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(name)
        )
    return found


def _parts(body: str) -> list[str]:
    """What commas divide, but for those in brackets or in quotes. A column that was added stands on the last line."""
    parts, depth, quoted = [""], 0, False
    for character in body:
        quoted ^= character == "'"
        depth += 0 if quoted else (character == "(") - (character == ")")
        if character == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def squeezed(value: object) -> str:
    """A piece of SQL without the white space and quotes that depend on who wrote it."""
    return "".join(str(value).replace('"', "").replace("\\n", " ").replace("\\t", " ").split())
