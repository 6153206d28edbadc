"""What the notice is held against: Flask, one route, one query by key, JSON; nobody is asked who they are."""

from flask import Flask
from sqlalchemy import bindparam, create_engine, select

from models import Member
from models.base import tune

BY_KEY = select(Member.__table__.c.external_id, Member.__table__.c.status, Member.__table__.c.last_used_at).where(
    Member.__table__.c.external_id == bindparam("external_id")
)


def create_app(url: str) -> Flask:
    """The application on this database, set up as ours is."""
    app, engine = Flask(__name__), create_engine(url)
    tune(engine)

    @app.get("/members/<external_id>/notice")
    def show(external_id: str) -> dict[str, object]:
        with engine.connect() as connection:
            row = connection.execute(BY_KEY, {"external_id": external_id}).one()
        return {"external_id": row.external_id, "status": row.status, "last_used_at": str(row.last_used_at)}

    return app
