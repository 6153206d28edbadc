"""Members in: what is taken over, what is guarded, what follows from a batch."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from domain.errors import BadValue
from models import Erasure, Event, Member, UseFeed
from services.erasure import digests
from services.files import staging
from services.files.reading import Counts
from services.importing import FEED
from settings import Settings
from tests import factories
from tests.conftest import NOW, make_settings
from tests.factories import at
from tests.services.filing import COLUMNS, Files

FULL = (
    "external_id,email,name,locale,joined_at,last_used_at,plan,price,currency,billing_interval,"
    "subscription_status,paid_through,exempt_reason"
)


@pytest.fixture
def files(session: Session, settings: Settings, tmp_path: Path) -> Files:
    return Files(session, settings, tmp_path, NOW)


def only(session: Session) -> Member:
    return session.scalars(select(Member)).one()


def test_every_column_arrives(files: Files, session: Session) -> None:
    row = (
        "m-1,Eva.Blum@Example.org,Eva Blüm,de_at,2024-01-05T18:30:00+01:00,2026-05-01,Standard,12.99,eur,Monthly,"
        "past-due,2026-07-01,works here"
    )
    found = files.members(f"{FULL}\n{row}\n")
    assert (found.counts, files.reasons) == (Counts(created=1), [])
    member = only(session)
    assert (member.external_id, member.billing_ref) == ("m-1", None), "the books know a member by the public id"
    assert (member.email, member.email_key) == ("Eva.Blum@Example.org", "eva.blum@example.org")
    assert (member.name, member.locale, member.plan) == ("Eva Blüm", "de-AT", "Standard")
    assert member.joined_at == at("2024-01-05 17:30")
    # A date is the start of that day in the service's time zone: Berlin, in summer.
    assert member.last_used_at == at("2026-04-30 22:00")
    assert member.paid_through == at("2026-06-30 22:00")
    assert (member.price_minor, member.currency, member.billing_interval) == (1299, "EUR", "month")
    assert (member.subscription_status, member.status) == ("past_due", "active")
    assert (member.exempt_reason, member.operator_exempt_reason) == ("works here", None)


def test_three_columns_are_enough(files: Files, session: Session) -> None:
    assert files.members(f"{COLUMNS}\nm-1,eva@example.org,2024-01-05\n").counts == Counts(created=1)
    member = only(session)
    assert (member.subscription_status, member.price_minor, member.last_used_at) == ("active", None, None)


def test_what_is_the_same_is_unchanged_and_what_differs_is_updated(files: Files, session: Session) -> None:
    files.members(f"{COLUMNS},name\nm-1,a@example.org,2024-01-05,A\nm-2,b@example.org,2024-01-05,B\n")
    again = files.members(
        f"{COLUMNS},name\nm-1,a@example.org,2024-01-05,A\nm-2,b@example.org,2024-01-05,Bea\nm-3,c@example.org,2024-01-05,C\n"
    )
    assert again.counts == Counts(created=1, updated=1, unchanged=1)
    assert session.scalars(select(Member.name).order_by(Member.external_id)).all() == ["A", "Bea", "C"]


def test_a_missing_column_leaves_a_value_and_an_empty_cell_clears_it(files: Files, session: Session) -> None:
    files.member("name,plan,price,currency,exempt_reason", "Eva", "Standard", "5", "EUR", "staff")
    files.member("name", "Eva")
    assert (only(session).plan, only(session).price_minor, only(session).exempt_reason) == ("Standard", 500, "staff")
    files.member("plan,exempt_reason", "", "")
    assert (only(session).plan, only(session).exempt_reason, only(session).price_minor) == (None, None, 500)


@pytest.mark.parametrize("header", ["last_used_at,name", "name"])
def test_scenario_02_a_file_without_uses_loses_no_use_and_no_exemption(
    files: Files, session: Session, header: str
) -> None:
    member = factories.using(session, external_id="m-1", operator_exempt_reason="asked us to")
    used = member.last_used_at
    session.commit()
    files.member(header, *[""] * (header.count(",") + 1))
    assert (only(session).last_used_at, only(session).operator_exempt_reason) == (used, "asked us to")


def test_a_use_is_raised_but_never_lowered(files: Files, session: Session) -> None:
    files.member("last_used_at", "2025-03-01T10:00:00Z")
    assert files.member("last_used_at", "2025-02-01T10:00:00Z").counts == Counts(unchanged=1)
    assert only(session).last_used_at == at("2025-03-01 10:00")
    assert files.member("last_used_at", "2025-04-01T10:00:00Z").counts == Counts(updated=1)
    assert only(session).last_used_at == at("2025-04-01 10:00")


@pytest.mark.parametrize(("cell", "becomes"), [("2025-02-01T10:00:00Z", at("2025-02-01 10:00")), ("", None)])
def test_correcting_uses_lowers_and_empties_them(
    files: Files, session: Session, cell: str, becomes: datetime | None
) -> None:
    files.member("last_used_at", "2025-03-01T10:00:00Z")
    files.members(f"{COLUMNS},last_used_at\nm-1,eva@example.org,2024-01-05,{cell}\n", correct_use=True)
    assert only(session).last_used_at == becomes


def test_a_use_told_as_the_date_of_joining_is_a_use_and_no_contradiction(files: Files, session: Session) -> None:
    files.members(f"{COLUMNS},last_used_at\nm-1,a@example.org,2024-01-05T18:30:00Z,2024-01-05\n")
    assert only(session).last_used_at == at("2024-01-05 18:30")


def test_an_external_id_counts_once_also_across_batches(
    files: Files, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "BATCH", 2)
    rows = [("m-1", "a"), ("m-1", "b"), ("m-2", "c"), ("m-3", "d"), ("m-2", "e")]
    found = files.members(
        f"{COLUMNS}\n" + "".join(f"{number},{name}@example.org,2024-01-05\n" for number, name in rows)
    )
    assert found.counts == Counts(created=3, rejected=2)
    assert [(reject.line, reject.external_id, reject.reason) for reject in files.rejects] == [
        (3, "m-1", "external_id is already on line 2 of this file"),
        (6, "m-2", "external_id is already on line 4 of this file"),
    ]
    assert session.scalars(select(Member.email).order_by(Member.external_id)).all() == [
        "a@example.org",
        "c@example.org",
        "d@example.org",
    ]


def test_a_new_address_is_good_until_it_bounces_and_a_new_spelling_is_no_new_address(
    files: Files, session: Session
) -> None:
    factories.member(session, external_id="m-1", email="Old@example.org", mail_state="bounced")
    session.commit()
    files.members(f"{COLUMNS}\nm-1,old@EXAMPLE.org,2025-01-15\n")
    assert (only(session).email, only(session).mail_state) == ("Old@example.org", "bounced")
    files.members(f"{COLUMNS}\nm-1,new@example.org,2025-01-15\n")
    assert (only(session).email, only(session).email_key) == ("new@example.org", "new@example.org")
    assert only(session).mail_state == "good"


def test_international_addresses_are_taken(files: Files, session: Session) -> None:
    files.members(f"{COLUMNS}\nm-1,Jürgen@Bücher.example,2024-01-05\nm-2,用户@例子.公司,2024-01-05\n")
    assert files.reasons == []
    assert session.scalars(select(Member.email_key).order_by(Member.external_id)).all() == [
        "jürgen@xn--bcher-kva.example",
        "用户@xn--fsqu00a.xn--55qx5d",
    ]


def lapsed(session: Session, **facts: object) -> Member:
    ended = datetime(2026, 5, 31, 22, tzinfo=UTC)
    dates = {"lapsed_at": ended, "access_ends_at": ended, "keep_until": ended + timedelta(days=300)}
    return factories.member(session, external_id="m-1", status="lapsed", **{**dates, **facts})


def test_a_lapse_and_what_it_is_offered_survive_an_import(files: Files, session: Session) -> None:
    lapsed(session)
    session.commit()
    files.members(
        f"{FULL}\nm-1,a@example.org,A,de,2025-01-15,,,,,,ended,,\n",
    )
    member = only(session)
    assert (member.status, member.subscription_status, member.name) == ("lapsed", "ended", "A")
    assert (member.plan, member.price_minor, member.currency, member.billing_interval) == (
        "Standard", 1299, "EUR", "month",
    )  # fmt: skip


def test_scenario_35_a_lapsed_member_for_whom_more_is_paid_has_returned(files: Files, session: Session) -> None:
    lapsed(session)
    session.commit()
    files.members(f"{COLUMNS},paid_through\nm-1,a@example.org,2025-01-15,2026-05-01\n")
    assert only(session).status == "lapsed"
    files.members(f"{COLUMNS},paid_through\nm-1,a@example.org,2025-01-15,2026-07-03\n")
    member = only(session)
    assert (member.status, member.returned_at, member.keep_until) == ("active", NOW, None)


def test_scenario_37_who_was_erased_stays_so_unless_they_joined_again_later(
    files: Files, session: Session, settings: Settings
) -> None:
    session.add(Erasure(digest=digests(settings, "m-1")[0], purged_at=at("2026-04-30 08:00")))
    session.commit()
    found = files.members(f"{COLUMNS}\nm-1,a@example.org,2024-01-05\nm-2,b@example.org,2024-01-05\n")
    assert found.counts == Counts(created=1, rejected=1)
    assert files.reasons == ["external_id was erased on 2026-04-30; only who joins later is taken again"]
    assert files.rejects[0].external_id == "m-1"
    assert files.members(f"{COLUMNS}\nm-1,a@example.org,2026-05-02\n").counts == Counts(created=1)


def test_an_erasure_under_an_earlier_key_is_recognised(session: Session, sqlite_url: str, tmp_path: Path) -> None:
    earlier = make_settings(sqlite_url, tmp_path, secret_key="the key before this one, long enough")
    later = make_settings(sqlite_url, tmp_path, secret_key_fallbacks=(earlier.secret_key,))
    session.add(Erasure(digest=digests(earlier, "m-1")[0], purged_at=at("2026-04-30 08:00")))
    session.commit()
    assert (
        Files(session, later, tmp_path, NOW).members(f"{COLUMNS}\nm-1,a@example.org,2024-01-05\n").counts.rejected == 1
    )


def test_who_has_asked_to_be_erased_is_not_updated(files: Files, session: Session) -> None:
    factories.member(session, external_id="m-1", status="ended", erase_requested_at=NOW, name="Eva")
    session.commit()
    found = files.members(f"{COLUMNS},name\nm-1,a@example.org,2025-01-15,Changed\n")
    assert (found.counts, files.reasons) == (
        Counts(rejected=1),
        ["the member has asked to be erased, which is under way"],
    )
    assert (only(session).name, only(session).status) == ("Eva", "ended")


def test_the_latest_use_of_the_file_is_when_the_feed_last_reported(files: Files, session: Session) -> None:
    files.members(
        f"{COLUMNS},last_used_at\nm-1,a@example.org,2024-01-05,2025-03-01T10:00:00Z\nm-2,b@example.org,2024-01-05,\n"
    )
    files.member("last_used_at", "2025-02-01T10:00:00Z")
    feed = session.get_one(UseFeed, FEED)
    assert (feed.last_event_at, feed.complete_through) == (at("2025-03-01 10:00"), None)


def test_a_dry_run_counts_the_same_and_keeps_nothing(
    files: Files, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "BATCH", 2)
    factories.member(session, external_id="m-1", email="a@example.org")
    session.commit()
    content = (
        f"{COLUMNS},last_used_at\nm-1,x@example.org,2025-01-15,2026-01-01\nm-2,b@example.org,2024-01-05,\nm-2,c,d,\n"
    )
    dry, dry_reasons = files.members(content, dry_run=True), files.reasons
    assert session.scalar(select(func.count()).select_from(Member)) == 1
    assert session.get(UseFeed, FEED) is None
    assert only(session).email == "a@example.org"
    session.rollback()
    assert (files.members(content), files.reasons) == (dry, dry_reasons)


# A complete file


def crowd(session: Session, count: int) -> None:
    for number in range(count):
        factories.member(session, external_id=f"m-{number}")
    session.commit()


def listing(numbers: range) -> str:
    return f"{COLUMNS}\n" + "".join(f"m-{number},m{number}@example.org,2025-01-15\n" for number in numbers)


def test_who_is_absent_from_a_complete_file_has_ended(files: Files, session: Session) -> None:
    crowd(session, 30)
    found = files.members(listing(range(25)), complete=True)
    assert (found.ended, found.refusal) == (5, None)
    assert session.scalar(select(func.count()).where(Member.status == "ended")) == 5
    assert session.scalars(select(Event.code)).all() == ["ended"] * 5
    assert files.members(listing(range(25)), complete=True).ended == 0


def test_without_complete_nobody_ends_by_being_absent(files: Files, session: Session) -> None:
    crowd(session, 3)
    files.members(listing(range(1)))
    assert session.scalar(select(func.count()).where(Member.status == "ended")) == 0


def test_a_complete_file_that_lacks_too_many_ends_nobody(files: Files, session: Session) -> None:
    crowd(session, 60)
    found = files.members(listing(range(30)), complete=True)
    assert found.ended == 0
    assert found.refusal is not None
    assert "30 of 60 active members are absent" in found.refusal
    assert session.scalar(select(func.count()).where(Member.status == "ended")) == 0


def test_a_rejected_row_is_not_an_absent_one(files: Files, session: Session) -> None:
    crowd(session, 2)
    found = files.members(f"{COLUMNS}\nm-0,not an address,2025-01-15\nm-1,b@example.org,2025-01-15\n", complete=True)
    assert (found.counts.rejected, found.ended) == (1, 0)


def test_a_row_that_does_not_say_whose_it_is_ends_nobody(files: Files, session: Session) -> None:
    crowd(session, 2)
    found = files.members(f"{COLUMNS}\nm-0,b@example.org,2025-01-15\nm-1\n", complete=True)
    assert found.ended == 0
    assert found.refusal == "1 row does not say whose they are, so nobody was marked as ended"


@pytest.mark.parametrize(("subscription", "becomes"), [("active", "active"), ("ended", "ended")])
def test_who_had_ended_and_is_listed_again_is_active_if_the_subscription_is(
    files: Files, session: Session, subscription: str, becomes: str
) -> None:
    factories.member(session, external_id="m-1", status="ended")
    session.commit()
    files.member("subscription_status", subscription)
    assert only(session).status == becomes


def test_a_subscription_that_ended_does_not_end_the_member(files: Files, session: Session) -> None:
    files.member("subscription_status", "ended")
    assert (only(session).status, only(session).subscription_status) == ("active", "ended")


# NDJSON


def test_json_lines_may_lack_different_names(files: Files, session: Session) -> None:
    files.members(
        f"{COLUMNS},name,plan\nm-1,a@example.org,2024-01-05,Eva,Standard\nm-2,b@example.org,2024-01-05,Bo,Basic\n"
    )
    found = files.members(
        '{"external_id": "m-1", "email": "a@example.org", "joined_at": "2024-01-05", "name": null}\n'
        '{"joined_at": "2024-01-05", "external_id": "m-2", "email": "b@example.org", "plan": "Plus", "price": 7.50,'
        ' "currency": "EUR"}\n',
        "members.ndjson",
    )
    assert (found.counts, files.reasons) == (Counts(updated=2), [])
    rows = session.execute(select(Member.name, Member.plan, Member.price_minor).order_by(Member.external_id)).all()
    assert [tuple(row) for row in rows] == [(None, "Standard", None), ("Bo", "Plus", 750)]


def test_json_lines_that_cannot_be_taken_stop_nothing(files: Files) -> None:
    good = '{"external_id": "m-1", "email": "a@example.org", "joined_at": "2024-01-05"}'
    found = files.members(
        "\n".join(
            (good, "[1, 2]", "{", '"text"', good.replace("m-1", "m-2").replace("}", ', "nmae": "A"}'),
             '{"external_id": "m-3"}', good.replace('"a@example.org"', "true"), good.replace("m-1", "m-4"))
        ),
        "members.jsonl",
    )  # fmt: skip
    assert found.counts == Counts(created=2, rejected=6)
    assert [reject.line for reject in files.rejects] == [2, 3, 4, 5, 6, 7]
    assert "no JSON object" in files.reasons[0]
    assert "no JSON" in files.reasons[1]
    assert "unknown column 'nmae': did you mean name?" in files.reasons[3]
    assert files.rejects[4].external_id == "m-3"
    assert "the column email is missing" in files.reasons[4]
    assert files.reasons[5] == "email must be text, not true or false"


def test_a_name_that_is_wrong_in_the_first_json_line_is_wrong_in_the_file(files: Files) -> None:
    with pytest.raises(BadValue, match="unknown column 'mail': did you mean email"):
        files.members('{"external_id": "m-1", "mail": "a@example.org", "joined_at": "2024-01-05"}\n', "m.ndjson")


# What follows from a batch


def test_scenario_19_a_use_before_the_lapse_that_a_member_file_tells_reverses_it(
    files: Files, session: Session
) -> None:
    member = lapsed(session)
    campaign_id = _silent_lapse(session, member)
    assert campaign_id
    files.members(f"{COLUMNS},last_used_at\nm-1,a@example.org,2025-01-15,2026-05-31T21:00:00Z\n")
    assert only(session).status == "active"


def test_an_old_use_in_a_nightly_file_reverses_nothing(files: Files, session: Session) -> None:
    member = lapsed(session, last_used_at=at("2025-01-20"))
    _silent_lapse(session, member)
    files.members(f"{COLUMNS},last_used_at\nm-1,a@example.org,2025-01-15,2025-01-20T00:00:00Z\n")
    assert only(session).status == "lapsed"


def test_scenario_13_a_new_address_in_mid_case_is_warned_anew(files: Files, session: Session) -> None:
    from models import Case

    member = factories.member(session, external_id="m-1", email="old@example.org")
    _live_case(session, member)
    files.members(f"{COLUMNS}\nm-1,new@example.org,2025-01-15\n")
    case = session.scalars(select(Case)).one()
    assert (case.address, case.address_generation, case.warned_at) == ("new@example.org", 2, None)


def _campaign(session: Session) -> int:
    from models import Campaign

    campaign = Campaign(
        month="2026-05",
        state="open",
        policy={},
        drafted_at=at("2026-05-01"),
        opened_at=at("2026-05-02"),
        dormant_count=1,
    )
    session.add(campaign)
    session.flush()
    return campaign.id


def _live_case(session: Session, member: Member, **facts: object) -> int:
    from models import Case

    campaign_id = _campaign(session)
    session.add(
        Case(
            campaign_id=campaign_id,
            member_id=member.id,
            rule="never_used",
            opened_at=at("2026-05-01"),
            address=member.email,
            found_joined_at=member.joined_at,
            found_sign_of_life_at=member.last_sign_of_life_at,
            warned_at=at("2026-05-03"),
            warned_to=member.email,
            deadline_at=at("2026-05-31 22:00"),
            **facts,
        )
    )
    session.commit()
    return campaign_id


def _silent_lapse(session: Session, member: Member) -> int:
    return _live_case(session, member, state="lapsed", closed_at=at("2026-05-31 22:00"))


def test_the_statements_of_a_batch_do_not_grow_with_its_rows(files: Files, session: Session) -> None:
    from sqlalchemy import event

    counted: list[str] = []
    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", lambda c, cur, statement, p, ctx, many: counted.append(statement))

    def statements(rows: int) -> int:
        counted.clear()
        files.members(listing(range(rows)))
        return len(counted)

    assert statements(3) == statements(900)


def test_nothing_is_written_where_nothing_differs(files: Files, session: Session) -> None:
    files.members(listing(range(3)))
    session.execute(update(Member).values(name="changed meanwhile"))
    session.commit()
    assert files.members(listing(range(3))).counts == Counts(unchanged=3)
    assert session.scalars(select(Member.name).distinct()).all() == ["changed meanwhile"]
