"""Libraries: what members find again exactly as they left it. The service gives its copy, and gets it back."""

from flask import Response

from blueprints.api import reading, shapes
from blueprints.api.members import GONE, ONE, member, same
from blueprints.api.operations import Answer, Body, Operation, answer, revalidated
from blueprints.problems import problem
from domain.errors import BadValue, Refused
from domain.lifecycle import MemberStatus
from domain.scopes import Scope
from models import db, for_writing
from services import library
from services.installation import installed


def put_library(external_id: str) -> Response:
    """Replace a member's library

    All of it: profiles with their settings, each with lists of items. A lapsed member's stays as it was until they come
    back: the answer is then 409 with what is saved.
    """
    here, session = installed(), db.session()
    sent = reading.parsed(reading.sent("application/json"))
    same(external_id, reading.shaped(shapes.LibraryIn, sent).external_id)
    for_writing(session)
    owner = member(external_id)
    try:
        created = library.replace(session, here.settings, {**sent, "external_id": external_id}, here.clock.now())
    except Refused as refusal:
        session.rollback()
        if owner.status != MemberStatus.LAPSED:
            return problem(409, str(refusal))
        saved = library.load(session, owner.id)
        until = None if owner.keep_until is None else owner.keep_until.isoformat()
        return problem(409, str(refusal), library=saved, keep_until=until)
    except BadValue as error:
        return problem(409, str(error))
    session.commit()
    return answer(library.load(session, owner.id), 201 if created else 200)


def show_library(external_id: str) -> Response:
    """Show a member's library

    As it was put there, also while the membership has ended: after a return the service has its data back.
    """
    return revalidated(answer(library.load(db.session(), member(external_id).id)))


OPERATIONS = [
    Operation(
        "GET", "/members/<path:external_id>/library", Scope.LIBRARY_READ, show_library,
        {200: Answer("The library", shapes.LibraryOut, ("ETag",)), 304: Answer("Nothing has changed")}, {404: GONE},
    ),
    Operation(
        "PUT", "/members/<path:external_id>/library", Scope.LIBRARY_WRITE, put_library,
        {200: Answer("It replaces another", shapes.LibraryOut), 201: Answer("It is the first", shapes.LibraryOut)},
        {**ONE, 404: GONE, 409: "A value cannot be what it should be; or the member has lapsed: with what is saved"},
        Body(shapes.LibraryIn),
    ),
]  # fmt: skip
