"""How Alembic runs here, online only: with Flask-Migrate's engine and one transaction a revision."""

from alembic import context
from flask import current_app
from sqlalchemy import text

from models.base import UTCDateTime

db = current_app.extensions["migrate"].db

LOCK = 0x0D02_0000
"""The advisory lock (any constant will do) that lets one of several upgrading processes go first."""


def render_item(kind: str, item: object, autogen_context: object) -> str | bool:
    """Revisions must not change when our code does, so they name SQLAlchemy's own types."""
    if kind == "type" and isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def run() -> None:
    # A backup is brought up to date before it takes its place: then it is not the application's database.
    engine = context.config.attributes.get("engine") or db.engine
    with engine.connect().execution_options(for_writing=True) as connection:
        context.configure(
            connection=connection,
            target_metadata=db.metadata,
            render_item=render_item,
            transactional_ddl=True,
            # A guarded table is never copied and renamed: its triggers would stay behind.
            render_as_batch=False,
        )
        with context.begin_transaction():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            context.run_migrations()


run()
