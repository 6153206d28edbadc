"""Files to import, as a service would export them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.databases import NOW

MEMBER_COLUMNS = (
    "external_id,email,name,locale,joined_at,last_used_at,plan,price,currency,billing_interval,subscription_status,"
    "paid_through,exempt_reason"
)
START = int(NOW.timestamp())


def members(path: Path, count: int) -> Path:
    """A first export: nobody is known yet."""
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{MEMBER_COLUMNS}\n")
        for i in range(1, count + 1):
            used = START - i * 7919 % 25_000_000
            joined, paid = _instant(used - i % 1000 * 86_400), _instant(START + i % 30 * 86_400)
            file.write(
                f"m-{i},member{i}@example.org,Member {i},{'de' if i % 2 else 'en'},{joined},"
                f"{_instant(used) if i % 7 else ''},Standard,12.99,EUR,month,active,{paid},\n"
            )
    return path


def activity(path: Path, count: int, members: int, after: timedelta) -> Path:
    """One use each of so many members, who come in no order; all are later than what is on record by ``after``."""
    step = next(one for one in (7919, 7927, 7933) if members % one)
    with path.open("w", encoding="utf-8") as file:
        file.write("external_id,used_at\n")
        for i in range(count):
            used = START + int(after.total_seconds()) + i % 3600
            file.write(f"m-{i * step % members + 1},{_instant(used)}\n")
    return path


def _instant(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat()
