"""The notice for a banner in the service's own pages: what the banner here shows, and where to answer."""

from typing import Any

from flask import Response, g
from sqlalchemy import and_, bindparam

from blueprints.api import reading, shapes
from blueprints.api.members import GONE, NOBODY
from blueprints.api.operations import Answer, Operation, answer, nothing, revalidated
from blueprints.problems import problem
from domain import dates
from domain.money import Money
from domain.scopes import Scope
from models import ApiKey, Case, Member, db
from services import api_keys, links, wording
from services.installation import installed
from services.notice import Notice, notice_of
from services.notice_words import in_words

_key, _member, _case = ApiKey.__table__, Member.__table__, Case.__table__
IS_ASKED = api_keys.FOUND.add_columns(_member.c.id.label("member_id"), _case.c.id.label("case_id")).select_from(
    _key.outerjoin(
        _member, and_(_member.c.external_id == bindparam("external_id"), _member.c.erase_requested_at.is_(None))
    ).outerjoin(_case, and_(_case.c.member_id == _member.c.id, _case.c.closed_at.is_(None)))
)
"""Who the member is, and whether a case of theirs is live: one look at three indexes, on every page of the service."""


def show_notice(external_id: str) -> Response:
    """Show a member's notice

    What a banner says to this member now: 204 when there is nothing to say, which is nearly always. The link opens the
    page where this member answers without signing in, so show it to nobody else.
    """
    query = reading.queried(shapes.NoticeQuery)
    here = installed()
    member_id, case_id = g.looked.member_id, g.looked.case_id
    if member_id is None:
        return problem(404, NOBODY)
    # Nearly nobody is asked, which has been seen together with the key.
    notice = None if case_id is None else notice_of(db.session(), here.settings, member_id, here.clock.now())
    if notice is None:
        return nothing()
    return revalidated(answer(as_json(notice, query.locale, amounts=query.amounts == "true")))


def as_json(notice: Notice, locale: str | None, *, amounts: bool) -> dict[str, Any]:
    """The notice in words, in this language if there is one, else in the member's, else in the service's."""
    settings = installed().settings
    with wording.in_language(locale or notice.locale) as language:
        words = in_words(notice, settings)
        return {
            "state": notice.state.value,
            "title": words.title,
            "text": words.text,
            "action": words.action,
            "link": links.to_check_in(settings, *notice.case),
            "language": language,
            "deadline": dates.named_day(notice.deadline, settings.zone).isoformat(),
            "deadline_at": notice.deadline.isoformat(),
            "ends_by_silence": notice.ends_by_silence,
            "answer": notice.answer,
            "amounts": _amounts(notice) if amounts else None,
        }


def _amounts(notice: Notice) -> dict[str, Any]:
    here = installed()
    price, since, zone = notice.price, notice.facts.sign_of_life_at, here.settings.zone
    estimate = None
    if price is not None and since is not None:
        estimate = wording.paid_since(
            price.minor, price.currency, notice.interval, since, here.clock.now(), here.settings.zone
        )
    money, text = notice.paid or estimate, wording.paid(notice.paid, notice.paid_as_of, estimate, zone)
    return {
        "price": price and _amount(price, wording.price(price.minor, price.currency, notice.interval)),
        "interval": notice.interval,
        "paid_since": money and text and {**_amount(money, text), "estimated": notice.paid is None},
    }


def _amount(money: Money, text: str) -> dict[str, Any]:
    return {"minor": money.minor, "currency": money.currency, "text": text}


OPERATIONS = [
    Operation(
        "GET", "/members/<path:external_id>/notice", Scope.NOTICE_READ, show_notice,
        {200: Answer("What the banner says", shapes.NoticeOut, ("ETag",)), 204: Answer("There is nothing to say"),
         304: Answer("Nothing has changed")},
        {404: GONE, 422: "A parameter has another shape"},
        query=shapes.NoticeQuery,
        look=IS_ASKED,
    ),
]  # fmt: skip
