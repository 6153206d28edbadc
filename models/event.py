"""What happened, for ever: surrogate ids, codes and instants, no personal data, no free text, never changed."""

from datetime import datetime

from sqlalchemy import DDL, Index, String, event
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id


class Event(Base):
    __tablename__ = "event"

    id: Mapped[Id]
    at: Mapped[datetime]
    code: Mapped[str] = mapped_column(String(40))
    detail: Mapped[str | None] = mapped_column(String(40))
    """A second code where one does not say it: the kind of a mail, the state a case ended in, how an answer came."""

    # No foreign keys: an event outlives what it tells of.
    member_id: Mapped[int | None]
    case_id: Mapped[int | None]
    campaign_id: Mapped[int | None]
    operator_id: Mapped[int | None]


Index("ix_event_member_id", Event.member_id)
Index("ix_event_campaign_id", Event.campaign_id)

GUARDS = {
    "sqlite": [
        "CREATE TRIGGER event_no_update BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'event is append-only'); END",
        "CREATE TRIGGER event_no_delete BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'event is append-only'); END",
    ],
    "postgresql": [
        "CREATE FUNCTION event_is_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'event is append-only'; END $$",
        "CREATE TRIGGER event_no_change BEFORE UPDATE OR DELETE ON event"
        " FOR EACH ROW EXECUTE FUNCTION event_is_append_only()",
        "CREATE TRIGGER event_no_truncate BEFORE TRUNCATE ON event"
        " FOR EACH STATEMENT EXECUTE FUNCTION event_is_append_only()",
    ],
}
for _dialect, _statements in GUARDS.items():
    for _statement in _statements:
        event.listen(Event.__table__, "after_create", DDL(_statement).execute_if(dialect=_dialect))
