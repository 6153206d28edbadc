"""What is known of the sources that report use: when they last reported one, and how far they are complete."""

from datetime import datetime
from typing import Any

from sqlalchemy import case, or_
from sqlalchemy.orm import Session

from models import UseFeed, insert


def record_use(
    session: Session, source: str, *, last_event_at: datetime | None = None, complete_through: datetime | None = None
) -> None:
    """Move a feed's marks forward; neither ever goes back."""
    statement = insert(session, UseFeed).values(
        source=source, last_event_at=last_event_at, complete_through=complete_through
    )
    values: dict[str, Any] = {}
    for name, given in (("last_event_at", last_event_at), ("complete_through", complete_through)):
        if given is not None:
            had = UseFeed.__table__.c[name]
            values[name] = case((or_(had.is_(None), had < given), statement.excluded[name]), else_=had)
    if values:
        session.execute(statement.on_conflict_do_update(index_elements=["source"], set_=values))
