"""The same work as bare SQL: what somebody would write by hand who knows the tables and has one kind of case only.

Same rows, same columns, same conditions of promises 1 and 2, on the bare driver. What it lacks is what ours has more:
every other way a case can end, the breaker, and rows of files that are not as they should be.
"""

import csv
from collections.abc import Callable, Iterator
from datetime import datetime
from io import StringIO
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.databases import Database
from services import closing

BLOCK = 10_000

FACTS = (
    "member.status = 'active' AND member.subscription_status = 'active' AND member.price_minor > 0"
    " AND member.exempt_reason IS NULL AND member.operator_exempt_reason IS NULL AND member.mail_state = 'good'"
)


def draft(database: Database, connection: Any, month: str, now: datetime, bounds: tuple[datetime, datetime]) -> None:
    at = database.instant
    halves = " UNION ALL ".join(
        f"SELECT c.id, member.id, '{rule}', {at(now)}, member.joined_at, member.last_used_at,"
        " member.last_sign_of_life_at, member.plan, member.price_minor, member.currency, member.billing_interval,"
        " member.email"
        f" FROM member, (SELECT id FROM campaign WHERE month = '{month}') AS c"
        f" WHERE {FACTS} AND member.last_used_at IS {used} AND member.last_sign_of_life_at < {at(bound)}"
        " AND NOT EXISTS (SELECT 1 FROM member_case WHERE member_case.member_id = member.id AND closed_at IS NULL)"
        for rule, used, bound in (("never_used", "NULL", bounds[0]), ("stopped_using", "NOT NULL", bounds[1]))
    )
    _transaction(
        connection,
        database,
        "INSERT INTO campaign (month, state, policy, drafted_at, dormant_count)"
        f" VALUES ('{month}', 'draft', '{{}}', {at(now)}, 0)",
        "INSERT INTO member_case (campaign_id, member_id, rule, opened_at, found_joined_at, found_last_used_at,"
        " found_sign_of_life_at, found_plan, found_price_minor, found_currency, found_billing_interval, address)"
        f" {halves}",
        "INSERT INTO event (at, code, detail, member_id, case_id, campaign_id)"
        f" SELECT {at(now)}, 'case_opened', rule, member_id, id, campaign_id FROM member_case"
        f" WHERE campaign_id = (SELECT id FROM campaign WHERE month = '{month}')",
    )


def approve(database: Database, connection: Any, campaign: int, now: datetime, deadline: datetime) -> None:
    at = database.instant
    _transaction(
        connection,
        database,
        f"UPDATE campaign SET state = 'open', opened_at = {at(now)}, deadline_at = {at(deadline)}"
        f" WHERE id = {campaign}",
        f"UPDATE member_case SET deadline_at = {at(deadline)} WHERE campaign_id = {campaign} AND closed_at IS NULL",
        "INSERT INTO message (once_key, kind, member_id, case_id, campaign_id, locale, to_address, priority,"
        " created_at, due_at)"
        " SELECT 'warning:' || c.public_id || ':' || c.address_generation, 'warning', member.id, c.id, c.campaign_id,"
        f" member.locale, member.email, 5, {at(now)}, {at(now)}"
        f" FROM member_case AS c JOIN member ON member.id = c.member_id WHERE c.campaign_id = {campaign}"
        " AND c.closed_at IS NULL AND c.answer IS NULL",
    )


def close(
    database: Database, connection: Any, deadline: datetime, warned_by: datetime, keep_until: datetime, now: datetime
) -> float:
    """In windows of member ids as ours, each a transaction; how many seconds the longest of them was open."""
    at, after, longest = database.instant, 0, 0.0
    while True:
        (last,) = connection.execute(
            "SELECT max(member_id) FROM (SELECT member_id FROM member_case WHERE closed_at IS NULL"
            f" AND deadline_at = {at(deadline)} AND member_id > {after} ORDER BY member_id LIMIT {closing.WINDOW}"
            ") AS due"
        ).fetchone()
        if last is None:
            break
        window = f"c.member_id > {after} AND c.member_id <= {last} AND c.deadline_at = {at(deadline)}"
        batch = f"{last:032x}"
        began = perf_counter()
        ends = "max(member.paid_through, {0})" if database.dialect == "sqlite" else "greatest(member.paid_through, {0})"
        _transaction(
            connection,
            database,
            f"UPDATE member SET status = 'lapsed', lapsed_at = {at(deadline)},"
            f" access_ends_at = {ends.format(at(deadline))}, keep_until = {at(keep_until)}"
            f" FROM member_case AS c WHERE member.id = c.member_id AND {window}"
            f" AND c.closed_at IS NULL AND c.answer IS NULL AND {FACTS}"
            " AND member.last_sign_of_life_at = c.found_sign_of_life_at AND member.email = c.address"
            f" AND member.email = c.warned_to AND c.warned_at < {at(warned_by)}"
            " AND EXISTS (SELECT 1 FROM message AS m WHERE m.case_id = c.id AND m.kind = 'warning'"
            " AND m.state = 'sent' AND m.to_address = c.warned_to)"
            " AND EXISTS (SELECT 1 FROM campaign WHERE campaign.id = c.campaign_id AND campaign.state = 'open')",
            f"UPDATE member_case AS c SET state = 'lapsed', closed_at = {at(now)}, batch = '{batch}' FROM member"
            f" WHERE member.id = c.member_id AND {window} AND c.closed_at IS NULL AND member.status = 'lapsed'",
            "INSERT INTO billing_order (key, member_id, case_id, kind, billing_ref, created_at, due_at)"
            " SELECT 'stop:' || c.public_id || ':' || c.generation, member.id, c.id, 'stop', member.billing_ref,"
            f" {at(now)}, {at(now)} FROM member_case AS c JOIN member ON member.id = c.member_id"
            f" WHERE {window} AND c.batch = '{batch}'",
            "INSERT INTO message (once_key, kind, member_id, case_id, campaign_id, locale, to_address, priority,"
            " created_at, due_at, deadline_at)"
            " SELECT 'lapsed:' || c.public_id || ':' || c.generation, 'lapsed', member.id, c.id, c.campaign_id,"
            f" member.locale, member.email, 3, {at(now)}, {at(now)}, c.deadline_at"
            f" FROM member_case AS c JOIN member ON member.id = c.member_id WHERE {window} AND c.batch = '{batch}'",
            "INSERT INTO event (at, code, detail, member_id, case_id, campaign_id)"
            f" SELECT {at(now)}, 'case_closed', c.state, c.member_id, c.id, c.campaign_id FROM member_case AS c"
            f" WHERE {window} AND c.batch = '{batch}'",
        )
        longest = max(longest, perf_counter() - began)
        after = last
    # The round is over: next month's share of dormant members is held against this one's.
    _transaction(
        connection,
        database,
        f"UPDATE campaign SET state = 'closed', closed_at = {at(now)}, paying_count = (SELECT count(*) FROM member"
        " WHERE status = 'active' AND subscription_status = 'active' AND price_minor > 0)",
    )
    return longest


def members(database: Database, connection: Any, path: Path) -> None:
    """csv.reader, then executemany or COPY straight into the table; the file has the columns in this order."""
    columns = (
        "external_id, email, name, locale, joined_at, last_used_at, plan, price_minor, currency, billing_interval,"
        " subscription_status, paid_through, exempt_reason, email_key, billing_ref"
    )
    stored = _stored(database)

    def rows(cells: Iterator[list[str]]) -> Iterator[tuple[Any, ...]]:
        for row in cells:
            id_, email, name, locale, joined, used, plan, price, currency, interval, status, paid, exempt = row
            yield (
                id_, email, name or None, locale or None, stored(joined), stored(used), plan or None,
                int(price.replace(".", "")), currency, interval, status, stored(paid), exempt or None,
                email, id_,
            )  # fmt: skip

    with path.open(newline="", encoding="utf-8") as file:
        cells = csv.reader(file)
        next(cells)
        connection.execute("BEGIN")
        _put(connection, database, f"member ({columns})", 15, rows(cells))
        connection.execute("COMMIT")


def activity(database: Database, connection: Any, path: Path) -> None:
    """csv.reader, then executemany or COPY into a temporary table, then one UPDATE."""
    kind = "TEXT" if database.dialect == "sqlite" else "timestamptz"
    stored = _stored(database)
    with path.open(newline="", encoding="utf-8") as file:
        cells = csv.reader(file)
        next(cells)
        connection.execute("BEGIN")
        connection.execute(f"CREATE TEMPORARY TABLE incoming (external_id TEXT, used_at {kind})")
        _put(connection, database, "incoming", 2, ((row[0], stored(row[1])) for row in cells))
        connection.execute(
            "UPDATE member SET last_used_at = latest.used_at"
            " FROM (SELECT external_id, max(used_at) AS used_at FROM incoming GROUP BY external_id) AS latest"
            " WHERE member.external_id = latest.external_id"
            " AND (member.last_used_at IS NULL OR member.last_used_at < latest.used_at)"
        )
        connection.execute("DROP TABLE incoming")
        connection.execute("COMMIT")


def _stored(database: Database) -> Callable[[str], str | None]:
    if database.dialect == "sqlite":
        return lambda cell: f"{cell[:10]} {cell[11:19]}.000000" if cell else None
    return lambda cell: cell or None


def _put(connection: Any, database: Database, target: str, width: int, rows: Iterator[tuple[Any, ...]]) -> None:
    if database.dialect == "sqlite":
        connection.executemany(f"INSERT INTO {target} VALUES ({', '.join('?' * width)})", rows)
        return
    with connection.cursor() as cursor, cursor.copy(f"COPY {target} FROM STDIN (FORMAT csv)") as copy:
        while block := list(islice(rows, BLOCK)):
            text = StringIO()
            csv.writer(text).writerows(block)
            copy.write(text.getvalue())


def _transaction(connection: Any, database: Database, *statements: str) -> None:
    connection.execute("BEGIN IMMEDIATE" if database.dialect == "sqlite" else "BEGIN")
    for statement in statements:
        connection.execute(statement)
    connection.execute("COMMIT")
