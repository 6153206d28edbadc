"""Everything on record of a member, to take along: as JSON for machines, and as one page for people.

The page says it in the words of the page of the membership; what only machines can read is in the JSON alone.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from io import BytesIO
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from flask import Response, render_template
from flask_babel import lazy_gettext

from blueprints.account import devices
from blueprints.account.history import SENT, in_words
from blueprints.language import NAMES
from domain.lifecycle import MessageState, OrderKind
from domain.notices import Kind
from domain.policy import SubscriptionStatus, assess
from models import Member
from services import wording
from services.account import Happening
from settings import Settings

SUBSCRIPTION = {
    SubscriptionStatus.ACTIVE: lazy_gettext("running"),
    SubscriptionStatus.TRIAL: lazy_gettext("trial period"),
    SubscriptionStatus.PAUSED: lazy_gettext("paused"),
    SubscriptionStatus.PAST_DUE: lazy_gettext("a payment is overdue"),
    SubscriptionStatus.ENDED: lazy_gettext("ended"),
}
TO_THE_PROVIDER = {
    OrderKind.STOP: lazy_gettext("We asked the payment provider to charge nothing more."),
    OrderKind.UNDO: lazy_gettext("We asked the payment provider to go on charging as before."),
    OrderKind.RESTART: lazy_gettext("We asked the payment provider to begin charging again."),
    OrderKind.REFUND: lazy_gettext("We asked the payment provider to pay a charge back."),
}


def zipped(evidence: Mapping[str, Any], page: str) -> Response:
    """The download: ``membership.json`` and ``membership.html``."""
    content = BytesIO()
    with ZipFile(content, "w", ZIP_DEFLATED) as archive:
        # With a fixed date the same facts give the same file.
        for name, text in (
            ("membership.json", json.dumps(evidence, ensure_ascii=False, indent=2, default=str)),
            ("membership.html", page),
        ):
            archive.writestr(ZipInfo(name), text, compress_type=ZIP_DEFLATED)
    response = Response(content.getvalue(), mimetype="application/zip")
    response.headers["Content-Disposition"] = 'attachment; filename="membership.zip"'
    return response


def page(
    evidence: Mapping[str, Any], member: Member, history: Iterable[Happening], settings: Settings, now: datetime
) -> str:
    """The same for people: in words, with the days of the service's time zone and prices as they are paid."""
    zone = settings.zone

    def day(instant: datetime | str) -> str:
        return wording.short_date(datetime.fromisoformat(instant) if isinstance(instant, str) else instant, zone)

    decision = assess(member.facts, settings.policy, now)
    return render_template(
        "account/data.html",
        member=member,
        evidence=evidence,
        speaks=NAMES[wording.supported(member.locale)],
        price=wording.price(member.price_minor, member.currency, member.billing_interval),
        subscription=SUBSCRIPTION.get(SubscriptionStatus(member.subscription_status)),
        why=wording.decision_sentence_to_member(
            decision.code,
            service=settings.service_name,
            joined_at=member.joined_at,
            last_used_at=member.last_used_at,
            sign_of_life_at=decision.sign_of_life_at,
            months=decision.months,
            zone=zone,
        ),
        orders=[
            (day(order["created_at"]), TO_THE_PROVIDER[order["kind"]], order["done_at"] and day(order["done_at"]))
            for order in evidence["billing_orders"]
        ],
        history=in_words(history),
        mails=[
            (day(mail["sent_at"]), SENT[Kind(mail["kind"])], mail["state"] == MessageState.BOUNCED)
            for mail in evidence["messages"]
            if mail["sent_at"] is not None and mail["kind"] in SENT
        ],
        devices=[(devices.in_words(one["device"]), day(one["at"])) for one in evidence["sign_ins"]],
        day=day,
        last_day=lambda bound: wording.last_day_short(bound, zone),
        zone=settings.service_timezone,
    )
