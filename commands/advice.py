"""What follows from a setting and surprises people: said by the forecast and by the doctor."""

from datetime import datetime

from domain.dates import add_months, local_day
from settings import Settings


def use_known_since(settings: Settings, now: datetime) -> str | None:
    """Before which days nobody is dormant, use being recorded only since USE_KNOWN_SINCE; None once all are past."""
    since = settings.use_known_since
    if since is None:
        return None
    today = local_day(now, settings.zone)
    never = add_months(since, settings.never_used_months)
    stopped = add_months(since, settings.stopped_using_months)
    waits = [
        f"before {first:%-d %B %Y} nobody is dormant {word}"
        for first, word in ((never, "for never having used it"), (stopped, "for having stopped using it"))
        if first > today
    ]
    return f"USE_KNOWN_SINCE is {since:%-d %B %Y}: {' and '.join(waits)}." if waits else None
