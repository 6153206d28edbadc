"""Members in, members out: one or 10,000 at a time, and the erasure of one."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime

from flask import Response, abort, request
from sqlalchemy import select

from blueprints.api import reading, shapes
from blueprints.api.operations import JSON, Answer, Body, Operation, answer, nothing, revalidated
from blueprints.problems import problem
from domain.errors import NotFound
from domain.scopes import Scope
from models import Member, db, for_writing
from services import erasure, erasure_log, evidence, importing, purging
from services.files.reading import Reject
from services.installation import installed, wake

NOBODY = "There is no such member, or the member was erased or is about to be."


def member(external_id: str) -> Member:
    """Whoever has this id at the service and has not asked to be erased; 404 for anybody else."""
    found = db.session.scalar(
        select(Member).where(Member.external_id == external_id, Member.erase_requested_at.is_(None))
    )
    return found if found is not None else abort(problem(404, NOBODY))


def put_member(external_id: str) -> Response:
    """Create or change a member

    Once or ten times, the result is the same. A name that is missing leaves what is on record, null clears it; a use is
    never lowered or emptied. What a later `paid_through` means for a lapsed member, and what else an import never does,
    is in docs/importing.md.
    """
    here, session = installed(), db.session()
    text = reading.sent(JSON)
    shaped = reading.shaped(shapes.MemberIn, reading.parsed(text))
    same(external_id, shaped.external_id)
    record = {**reading.parsed(text, numbers=False), "external_id": external_id}
    rejects: list[Reject] = []
    for_writing(session)
    counts = importing.import_records(
        session, here.settings, [(1, "", record)], here.clock.now(), rejected=rejects.append
    )
    if rejects or external_id != external_id.strip():
        session.rollback()
        return problem(409, rejects[0].reason if rejects else "external_id begins or ends with a space")
    session.commit()
    wake()
    result = "created" if counts.created else "updated" if counts.updated else "unchanged"
    return answer({"external_id": external_id, "result": result}, 201 if counts.created else 200)


def put_members() -> Response:
    """Create or change up to 10,000 members

    Each row goes the way of a row of a member file: the same checks, the same reasons, and a bad one stops no other.
    All that are good are taken in one transaction.
    """
    here, session = installed(), db.session()
    text = reading.sent(JSON, reading.NDJSON)
    if request.mimetype == JSON:
        body = reading.shaped(shapes.MembersIn, reading.parsed(text, numbers=False))
        records = reading.rows(body.members)
    else:
        records = reading.lines(text)
    rejects: list[Reject] = []
    for_writing(session)
    counts = importing.import_records(session, here.settings, records, here.clock.now(), rejected=rejects.append)
    session.commit()
    wake()
    said = shapes.counted(counts, "created", "updated", "unchanged", "rejected")
    return answer({**said, "rejects": told(rejects)})


def list_members() -> Response:
    """List members, page by page

    In the order of their ids. `next` of one page is the `cursor` of the one after it; a member who comes or goes
    meanwhile moves nobody else from one page to another.
    """
    query = reading.queried(shapes.PageQuery)
    after = _after(query.cursor)
    wanted = select(Member).where(Member.external_id.is_not(None), Member.erase_requested_at.is_(None))
    if after is not None:
        wanted = wanted.where(Member.external_id > after)
    if query.status is not None:
        wanted = wanted.where(Member.status == query.status)
    found = list(db.session.scalars(wanted.order_by(Member.external_id).limit(query.limit + 1)))
    page, more = found[: query.limit], len(found) > query.limit
    return revalidated(answer({"members": [_listed(one) for one in page], "next": _cursor(page[-1]) if more else None}))


def show_member(external_id: str) -> Response:
    """Show why a member is in or out

    The facts, the decision, the case, what was sent with which reply, what was answered, and the library: the object of
    `flask members show --json`.
    """
    here = installed()
    found = evidence.member_evidence(db.session(), here.settings, member(external_id), here.clock.now())
    return revalidated(answer(found))


def erase_member(external_id: str) -> Response:
    """Erase a member for good

    There is no way back. Charging is stopped first: until the payment provider has confirmed that, the answer is 202,
    and nothing is kept but what it needs.
    """
    here, session = installed(), db.session()
    now = here.clock.now()
    for_writing(session)
    found = session.execute(
        select(Member.id, Member.erase_requested_at).where(Member.external_id == external_id)
    ).one_or_none()
    if found is None:
        if erasure.purged(session, here.settings, [external_id]):
            return nothing()
        raise NotFound(NOBODY)
    if found.erase_requested_at is None and purging.erase(session, here.settings, found.id, now):
        session.commit()
        erasure_log.keep_up(session, here.settings)
        wake()
        return nothing()
    session.commit()
    wake()
    return answer({"external_id": external_id, "state": "waiting"}, 202)


def told(rejects: list[Reject]) -> list[dict[str, object]]:
    return [{"row": one.line, "external_id": one.external_id, "reason": one.reason} for one in rejects]


def same(external_id: str, sent: str | None) -> None:
    if sent is not None and sent != external_id:
        abort(problem(409, "external_id in the body is another one than in the address"))


def _listed(one: Member) -> dict[str, object]:
    return {
        "external_id": one.external_id,
        "status": one.status,
        **{
            name: _iso(getattr(one, name))
            for name in ("joined_at", "last_used_at", "last_sign_of_life_at", "lapsed_at", "keep_until")
        },
    }


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _cursor(last: Member) -> str:
    assert last.external_id is not None, "only who has one is listed"
    return urlsafe_b64encode(last.external_id.encode()).decode()


def _after(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    try:
        found = urlsafe_b64decode(cursor).decode()
        if found and "\0" not in found and urlsafe_b64encode(found.encode()).decode() == cursor:
            return found
    except ValueError:
        pass
    return abort(problem(409, "This cursor is none that a page has given; begin without one."))


GONE = "There is no such member"
COUNTED = {200: Answer("How many rows were taken, and why others were not", shapes.MembersCounted)}
ROWS = {
    400: "The body cannot be read",
    413: "More than 10,000 rows, or too many bytes",
    415: "The body is of another type",
    422: "The body has another shape",
}
ONE = {name: said for name, said in ROWS.items() if name != 413} | {413: "The body is too long"}

OPERATIONS = [
    Operation(
        "GET", "/members", Scope.MEMBERS_READ, list_members,
        {200: Answer("A page of members", shapes.Page, ("ETag",)), 304: Answer("Nothing has changed")},
        {409: "The cursor is no cursor", 422: "A parameter has another shape"},
        query=shapes.PageQuery,
    ),
    Operation(
        "POST", "/members/batch", Scope.MEMBERS_WRITE, put_members, COUNTED, ROWS,
        Body(shapes.MembersIn, {reading.NDJSON: reading.ndjson("one member a line, with external_id")}),
    ),
    Operation(
        "GET", "/members/<member_id:external_id>", Scope.MEMBERS_READ, show_member,
        {200: Answer("The member", shapes.MemberOut, ("ETag",)), 304: Answer("Nothing has changed")}, {404: GONE},
    ),
    Operation(
        "PUT", "/members/<member_id:external_id>", Scope.MEMBERS_WRITE, put_member,
        {200: Answer("It was known", shapes.Written), 201: Answer("It is new", shapes.Written)},
        {**ONE, 409: "A value cannot be what it should be, or the member was erased"},
        Body(shapes.MemberIn),
    ),
    Operation(
        "DELETE", "/members/<member_id:external_id>", Scope.MEMBERS_WRITE, erase_member,
        {202: Answer("Charging is being stopped; then everything is erased", shapes.Erasing),
         204: Answer("Everything is erased")},
        {404: GONE},
    ),
]  # fmt: skip
