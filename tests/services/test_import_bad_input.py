"""What bad files get (design section 7): a reason that names the place and what would be right; the rest goes on."""

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.errors import BadValue
from models import Member
from services.addresses import PLAIN, PLAIN_LENGTH
from services.files import columns, reading
from services.files.member_rows import COLUMNS as KNOWN
from services.files.reading import Counts
from services.importing import import_members
from settings import Settings
from tests.conftest import NOW
from tests.services.filing import COLUMNS, Files

GOOD = "m-9,good@example.org,2024-01-05"


@pytest.fixture
def files(session: Session, settings: Settings, tmp_path: Path) -> Files:
    return Files(session, settings, tmp_path, NOW)


@pytest.mark.parametrize(
    ("header", "cell", "reason"),
    [
        ("last_used_at", "2026-06-03T12:00:01+02:00", "last_used_at 2026-06-03T12:00:01+02:00 is in the future"),
        ("last_used_at", "2023-12-31", "last_used_at 2023-12-31 is before joined_at; it must be at or after it"),
        (
            "last_used_at",
            "2025-01-01T10:00:00",
            "last_used_at '2025-01-01T10:00:00' has no offset; write 2025-01-01T10:00:00+01:00, or Z for UTC",
        ),
        (
            "paid_through",
            "soon",
            "paid_through 'soon' is no date such as 2025-03-03 and no instant such as 2025-03-03T18:30:00+01:00",
        ),
        (
            "paid_through",
            "9999-12-31",
            "paid_through 9999-12-31 is too far ahead; leave it empty where there is no end",
        ),
        (
            "paid_through",
            "0000-00-00",
            "paid_through '0000-00-00' is no date such as 2025-03-03 and no instant such as 2025-03-03T18:30:00+01:00",
        ),
        ("last_used_at", "1066-10-14", "last_used_at 1066-10-14 is before 1900"),
        ("price,currency", "-3,EUR", "price '-3' is negative"),
        ("price,currency", "12.999,EUR", "price '12.999' has more than 2 digits after the point"),
        ("price,currency", "12.5,JPY", "price '12.5' has more than 0 digits after the point"),
        ("price,currency", "a lot,EUR", "price 'a lot' is not a decimal such as 12.99"),
        ("price,currency", "12.99,QQQ", "currency 'QQQ' is no ISO 4217 code such as EUR"),
        ("price,currency", "12.99,", "price '12.99' has no currency beside it"),
        ("billing_interval", "fortnight", "billing_interval 'fortnight' is none of month, year, quarter, week"),
        (
            "subscription_status",
            "alive",
            "subscription_status 'alive' is none of active, trial, paused, past_due, ended",
        ),
        ("locale", "german", "locale 'german' is no language tag such as de or de-AT"),
        ("name", '"Eva\r\nBcc: all@example.org"', "name holds a line break (character 4); it must be one line"),
        ("name", "a\x00b", "name holds a control character (U+0000, character 2)"),
        ("name", "x" * 201, "name is longer than 200 characters"),
        ("plan", "x" * 101, "plan is longer than 100 characters"),
    ],
)
def test_a_bad_cell_is_named_and_the_rest_goes_on(
    files: Files, session: Session, header: str, cell: str, reason: str
) -> None:
    empty = "," * header.count(",")
    found = files.members(f"{COLUMNS},{header}\nm-1,eva@example.org,2024-01-05,{cell}\n{GOOD},{empty}\n")
    assert (found.counts, files.reasons) == (Counts(created=1, rejected=1), [reason])
    assert (files.rejects[0].line, files.rejects[0].external_id) == (2, "m-1")
    assert session.scalars(select(Member.external_id)).all() == ["m-9"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("m-1,eva@example.org,2026-07-01", "joined_at 2026-07-01 is in the future"),
        ("m-1,eva@example.org,", "joined_at is empty"),
        ("m-1,,2024-01-05", "email is empty"),
        (",eva@example.org,2024-01-05", "external_id is empty"),
        ("m-1,eva at home,2024-01-05", "'eva at home' is no e-mail address"),
        ("m-1,eva@example.org\u202e@,2024-01-05", "is no e-mail address"),
        ("m-1,eva@example.org", "the row has 2 cells and the header 3"),
        ("m-1,eva@example.org,2024-01-05,more", "the row has 4 cells and the header 3"),
        ('"m-1,eva@example.org,2024-01-05', "a quotation mark is left open"),
        ('"m-1"x,eva@example.org,2024-01-05', "the row is no CSV"),
    ],
)
def test_a_bad_row_stops_nothing(files: Files, session: Session, row: str, reason: str) -> None:
    found = files.members(f"{COLUMNS}\n{row}\n{GOOD}\n")
    assert found.counts == Counts(created=1, rejected=1)
    assert reason in files.reasons[0]
    assert session.scalars(select(Member.external_id)).all() == ["m-9"]


def test_an_open_quotation_mark_swallows_no_other_row(files: Files) -> None:
    rows = [f"m-{n},m{n}@example.org,2024-01-05,Name {n}" for n in range(40)]
    rows[3] = 'm-3,m3@example.org,2024-01-05,"Open'
    rows[30] = 'm-30,m30@example.org,2024-01-05,"Open too'
    found = files.members(f"{COLUMNS},name\n" + "\n".join(rows))
    assert found.counts == Counts(created=38, rejected=2)
    assert [reject.line for reject in files.rejects] == [5, 32]


def test_a_quotation_mark_within_a_cell_is_a_character(files: Files, session: Session) -> None:
    files.members(
        f'{COLUMNS},plan\nm-1,a@example.org,2024-01-05,5" screen\nm-2,b@example.org,2024-01-05,"7"" screen"\n'
    )
    assert session.scalars(select(Member.plan).order_by(Member.external_id)).all() == ['5" screen', '7" screen']


def test_a_byte_that_is_not_utf_8_is_one_bad_row(files: Files) -> None:
    found = files.members(
        f"{COLUMNS},name\nm-1,a@example.org,2024-01-05,J\xfcrgen\n".encode("latin-1") + f"{GOOD},Jörg\n".encode()
    )
    assert found.counts == Counts(created=1, rejected=1)
    assert files.reasons == ["name holds a byte that is not UTF-8 (0xFC, character 2); save as UTF-8"]
    assert files.rejects[0].line == 2
    files.rejects[0].row.encode("utf-8")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_line_ends_and_a_bom_are_recognised(tmp_path: Path, delimiter: str, end: str, mark: str) -> None:
    header, row = [*COLUMNS.split(","), "name"], [*GOOD.split(","), "Eva"]
    path = tmp_path / "file.csv"
    lines = (mark + delimiter.join(header), delimiter.join(row), delimiter * 3, "", "")
    path.write_bytes(end.join(lines).encode())
    with reading.opened(path) as file:
        numbered = reading.numbered_lines(file, lambda done: None)
        assert reading.csv_header(numbered, KNOWN) == (header, delimiter)
        assert list(reading.csv_records(numbered, delimiter, 4)) == [(2, delimiter.join(row), row)]


def test_ten_megabytes_in_one_field_are_one_bad_row(files: Files) -> None:
    found = files.members(f"{COLUMNS},name\nm-1,a@example.org,2024-01-05,{'x' * 10_000_000}\n{GOOD},Eva\n")
    assert found.counts == Counts(created=1, rejected=1)
    assert files.reasons == ["the row is longer than 1,000,000 characters"]
    assert len(files.rejects[0].row) < 3000


def test_ten_megabytes_in_quotes_are_one_bad_row(files: Files) -> None:
    found = files.members(f'{COLUMNS},name\nm-1,a@example.org,2024-01-05,"{"x" * 500_000}"\n{GOOD},Eva\n')
    assert found.counts == Counts(created=1, rejected=1)
    assert "the row is no CSV: field larger than field limit" in files.reasons[0]


def test_a_script_in_a_name_is_a_name(files: Files, session: Session) -> None:
    files.member("name", "<script>alert(1)</script>")
    assert session.scalars(select(Member.name)).one() == "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("external_id,e_mail,joined_at", "unknown column 'e_mail': did you mean email?"),
        ("external_id,email,joined_at,Last Used", "unknown column 'Last Used': did you mean last_used_at?"),
        ("id,email,joined_at", "unknown column 'id': did you mean external_id?"),
        ("external_id,Mail,joined_at", "unknown column 'Mail': did you mean email?"),
        ("external_id,email,joined", "unknown column 'joined': did you mean joined_at?"),
        ("external_id,email,joined_at,last_use", "unknown column 'last_use': did you mean last_used_at?"),
        ("external_id,email,joined_at,lastUsed", "unknown column 'lastUsed': did you mean last_used_at?"),
        ("external_id,email,joined_at,last_login_at", r"unknown column 'last_login_at' \(there are external_id"),
        ("external_id,email,joined_at,paid_until", "unknown column 'paid_until': did you mean paid_through?"),
        ("external_id,email,joined_at,status", "unknown column 'status': did you mean subscription_status?"),
        ("external_id,email,joined_at,zzz", r"unknown column 'zzz' \(there are external_id"),
        ("external_id,email,name", "the column joined_at is missing"),
        ("external_id,email,joined_at,email", "the column email is there twice"),
        ("external_id,email,joined_at,", "column 4 has no name"),
        ("external_id,email,joined_at,price", "the columns price and currency need one another"),
        ("", "the file is empty"),
    ],
)
def test_a_wrong_header_imports_nothing(files: Files, session: Session, header: str, reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        files.members(f"{header}\n{GOOD}\n")
    assert session.scalars(select(Member.id)).all() == []


def test_unknown_columns_are_left_out_when_asked(files: Files, session: Session) -> None:
    files.members("shoe_size,external_id,email,,joined_at\n43,m-1,a@example.org,x,2024-01-05\n", ignore_unknown=True)
    assert session.scalars(select(Member.email)).one() == "a@example.org"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("map.json", '{"Customer No": "external_id", "Mail": "email", "Since": "joined_at", "Shoe": null}'),
        ("map.csv", "Customer No,external_id\nMail,email\nSince,joined_at\nShoe,\n"),
        ("map.csv", "Customer No;external_id\r\nMail;email\r\nSince;joined_at\r\nShoe;\r\n"),
    ],
)
def test_a_map_gives_columns_their_names(files: Files, session: Session, name: str, content: str) -> None:
    mapped = columns.read_map(files.write(content, name), KNOWN)
    files.members("Customer No;Mail;Shoe;Since\nm-1;a@example.org;43;2024-01-05\n", mapped=mapped)
    assert session.scalars(select(Member.external_id)).one() == "m-1"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("map.json", '{"Mail": "e-mail"}', "maps 'Mail' to 'e-mail', which is no column: did you mean email"),
        ("map.json", "[1]", "must be one JSON object"),
        ("map.json", "{", "is no JSON"),
        ("map.csv", "just one\n", "line 1: write the file's column and ours"),
    ],
)
def test_a_map_that_cannot_be_used_is_said(files: Files, name: str, content: str, reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        columns.read_map(files.write(content, name), KNOWN)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f"{COLUMNS}\n{GOOD}\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
        (f"{COLUMNS}\r{GOOD}\r".encode(), "the lines end with CR alone"),
        (b"", "the file is empty"),
    ],
)
def test_a_file_that_cannot_be_read_is_said(files: Files, content: bytes, reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        files.members(content)


@pytest.mark.parametrize(("name", "reason"), [("nowhere.csv", "No such file"), (".", "Is a directory")])
def test_a_file_that_is_none_is_said(
    session: Session, settings: Settings, tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(BadValue, match=f"cannot be read: {reason}"):
        import_members(session, settings, tmp_path / name, NOW, commit=session.commit)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_lines_come_out_whole_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(reading, "BLOCK", size)
    path = tmp_path / "file"
    path.write_bytes("\ufeffä,b\r\n\r\nüü\n€".encode())
    done: list[int] = []
    with reading.opened(path) as file:
        lines = list(reading.numbered_lines(file, done.append, 10))
    assert lines == [(1, "ä,b"), (2, ""), (3, "üü"), (4, "€")]
    assert sum(done) == path.stat().st_size - 3


def test_of_a_line_that_is_too_long_no_more_is_held_than_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK", 16)
    path = tmp_path / "file"
    path.write_bytes(b"a" * 1000 + b"\nb\n" + b"c" * 1000)
    with reading.opened(path) as file:
        lines = list(reading.numbered_lines(file, lambda done: None, 20))
    assert [line for line, _ in lines] == [1, 2, 3]
    assert [len(text) > 20 for _, text in lines] == [True, False, True]
    assert all(len(text) < 40 for _, text in lines)


@pytest.mark.parametrize(
    "address",
    [
        "a..b@example.org",
        ".a@example.org",
        "a@-x.org",
        "a@x-.org",
        "a@b--c.org",
        "a@host.test",
        "a@host.local",
        "a@b.LOCALHOST",
        "a@b.c1",
        f"{'a' * 65}@example.org",
        "a@\u212aelvin.org",
    ],
)
def test_the_short_way_takes_no_address_that_the_validator_might_refuse(address: str) -> None:
    assert len(address) > PLAIN_LENGTH or not PLAIN.fullmatch(address)
