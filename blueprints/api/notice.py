"""The notice for a banner in the service's own pages: what the banner here shows, and where to answer."""

from typing import Any

from flask import Response

from blueprints.api import reading, shapes
from blueprints.api.members import GONE, NOBODY
from blueprints.api.operations import Answer, Operation, answer, nothing, revalidated
from blueprints.problems import problem
from domain import dates
from domain.money import Money
from domain.scopes import Scope
from models import db
from services import links, wording
from services.installation import installed
from services.notice import Notice, notice_by_id
from services.notice_words import in_words


def show_notice(external_id: str) -> Response:
    """Show a member's notice

    What a banner says to this member now: 204 when there is nothing to say, which is nearly always. The link opens the
    page where this member answers without signing in, so show it to nobody else.
    """
    query = reading.queried(shapes.NoticeQuery)
    here = installed()
    known, notice = notice_by_id(db.session(), here.settings, external_id, here.clock.now())
    if not known:
        return problem(404, NOBODY)
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
    price, since = notice.price, notice.facts.sign_of_life_at
    paid = None
    if price is not None and since is not None:
        paid = wording.paid_since(
            price.minor, price.currency, notice.interval, since, here.clock.now(), here.settings.zone
        )
    return {
        "price": price and _amount(price, wording.price(price.minor, price.currency, notice.interval)),
        "interval": notice.interval,
        "paid_since": paid and _amount(paid, wording.about(paid)),
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
    ),
]  # fmt: skip
