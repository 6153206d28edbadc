"""A record of services/proof.py in words: the page to print, the file beside the JSON, and what a terminal shows.

Made of the record alone, not of the tables, so that what people read and what is signed are the same. In the language
of the present locale; days in the service's time zone.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from flask_babel import ngettext

from domain import dates
from domain.lifecycle import Answer, OrderKind, OrderState, Rule, Through
from domain.notices import Kind
from domain.policy import SubscriptionStatus
from services import wording
from services.wording import _

Facts = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of several: a mail, an answer, an order."""

    title: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    sentence: str | None = None
    facts: Facts = field(default_factory=list)
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    """``last_day`` names the end; ``key`` is the fingerprint and ``value`` the signature, None where there is none.

    A file that is asked for later is as of later: only where both are written at once is the signature the same.
    """

    lead: str
    last_day: str
    sections: list[Section]
    key: str | None
    value: str | None


def page(signed: dict[str, Any]) -> Page:
    """The page of a record with its signature, as services/signing.py puts them together."""
    record, signature = signed["record"], signed["signature"]
    zone = ZoneInfo(record["service"]["time_zone"])
    last_day = _last_day(record["end"]["ended_at"], zone)
    return Page(
        lead=_lead(record, last_day),
        last_day=last_day,
        sections=[
            _about(record, zone),
            _why(record, zone),
            _mails(record, zone),
            _answers(record, zone),
            _end(record, zone),
            _billing(record, zone),
            *_afterwards(record, zone),
        ],
        key=None if signature is None else signature["fingerprint"],
        value=None if signature is None else signature["value"],
    )


def _lead(record: dict[str, Any], last_day: str) -> str:
    named = {"service": record["service"]["name"], "day": last_day}
    if record["end"]["state"] != "lapsed":
        return _("The membership of %(service)s was ended with %(day)s, and this end was taken back.", **named)
    if record["end"]["by"] == "own_wish":
        return _("The membership of %(service)s ended with %(day)s, as its member asked.", **named)
    return _("The membership of %(service)s ended with %(day)s, because no answer came to our notices.", **named)


def _about(record: dict[str, Any], zone: ZoneInfo) -> Section:
    number, erased = record["member"]["customer_number"], record["member"]["erased_at"]
    return Section(
        _("What this is"),
        _("What is on record about one end of a membership: the reason, what was sent and answered, and the end.")
        if erased is None
        else _(
            "The member's data was deleted for good on %(day)s. What is left names nobody.",
            day=_day(erased, zone) or "",
        ),
        _known(
            (_("Service"), f"{record['service']['name']}, {record['service']['url']}"),
            (_("Customer number"), number),
            (_("Number of this record"), record["case"]["id"]),
            (_("State of"), _moment(record["issued_at"], zone)),
        ),
    )


def _why(record: dict[str, Any], zone: ZoneInfo) -> Section:
    case, facts = record["case"], record["case"]["facts_found"]
    opened, sign = datetime.fromisoformat(case["opened_at"]), _instant(facts["last_sign_of_life_at"])
    sentence = wording.decision_sentence(
        case["rule"],
        joined_at=_instant(facts["joined_at"]),
        last_used_at=_instant(facts["last_used_at"]),
        sign_of_life_at=sign,
        months=0 if sign is None else dates.months_between(dates.local_day(sign, zone), dates.local_day(opened, zone)),
        zone=zone,
    )
    erased = facts["joined_at"] is None
    never = None if erased else _("not used since you joined")
    price = None if erased else wording.price(facts["price_minor"], facts["currency"], facts["billing_interval"])
    return Section(
        _("Why"),
        sentence,
        _known(
            (_("Looked at on"), _moment(case["opened_at"], zone)),
            (_("Rule"), _rule(record)),
            (_("Member since"), _day(facts["joined_at"], zone)),
            (_("Last used"), _day(facts["last_used_at"], zone) or never),
            (_("We last heard from you"), _day(facts["last_sign_of_life_at"], zone)),
            (_("Plan"), facts["plan"]),
            (_("Price"), price),
        ),
    )


def _rule(record: dict[str, Any]) -> str:
    rules = record["case"]["rules_of_the_round"] or {}
    match record["case"]["rule"]:
        case Rule.NEVER_USED if "never_used_months" in rules:
            return _(
                "No use on record, and no sign of life for %(months)s",
                months=wording.count_months(rules["never_used_months"]),
            )
        case Rule.STOPPED_USING if "stopped_using_months" in rules:
            return _(
                "Used before, and no sign of life for %(months)s",
                months=wording.count_months(rules["stopped_using_months"]),
            )
        case Rule.OWN_WISH:
            return _("The member's own wish, without having been asked")
    return str(record["case"]["rule"])


def _mails(record: dict[str, Any], zone: ZoneInfo) -> Section:
    words = {
        Kind.WARNING: _("First notice"),
        Kind.REMINDER: _("Second notice"),
        Kind.LAST_CALL: _("Last notice"),
        Kind.DEADLINE_MOVED: _("A later day"),
        Kind.RECEIPT_KEEP: _("Confirmation of the answer: continue"),
        Kind.RECEIPT_LAPSE: _("Confirmation of the answer: end"),
        Kind.LAPSED: _("The membership has ended"),
        Kind.RETURNED: _("The membership continues"),
        Kind.WITHDRAWN: _("Our question is withdrawn"),
        Kind.USED_AFTER_END: _("Whether the end still holds"),
    }
    states = {
        "queued": _("waiting"),
        "sending": _("being sent"),
        "failed": _("could not be delivered"),
        "bounced": _("came back"),
        "obsolete": _("not sent: it no longer held"),
    }
    return Section(
        _("What was sent"),
        None if record["mails"] else _("Nothing was sent."),
        items=[
            Item(
                str(words.get(mail["kind"], mail["kind"])),
                _known(
                    (_("To"), mail["to"]),
                    (_("Accepted by the mail server"), _moment(mail["accepted_at"], zone)),
                    (_("Its answer"), mail["server_reply"]),
                    (_("Delivery"), states.get(mail["state"])),
                    (_("Last day named in it"), _last_day(mail["named_deadline_at"], zone)),
                    (_("Wording"), mail["wording_version"]),
                    (_("Message-ID"), mail["message_id"]),
                ),
            )
            for mail in record["mails"]
        ],
    )


def _answers(record: dict[str, Any], zone: ZoneInfo) -> Section:
    words = {Answer.KEEP: _("Continue the membership"), Answer.LAPSE: _("End the membership")}
    ways = {
        Through.LINK: _("by the link in a mail"),
        Through.ACCOUNT: _("signed in"),
        Through.PUBLIC: _("on the page for ending without signing in"),
        Through.OPERATOR: _("told to the service, and entered there"),
        Through.SILENCE: _("by saying nothing"),
    }
    return Section(
        _("What was answered"),
        None if record["answers"] else _("No answer came."),
        items=[
            Item(
                words[answer["answer"]],
                _known(
                    (_("When"), _moment(answer["at"], zone)),
                    (_("How"), ways.get(answer["through"], answer["through"])),
                    (_("Wording"), answer.get("wording_version")),
                    (_("Noted with it"), answer.get("note")),
                ),
            )
            for answer in record["answers"]
        ],
    )


def _end(record: dict[str, Any], zone: ZoneInfo) -> Section:
    end = record["end"]
    warned = None
    if end["warned_days_before"] is not None:
        warned = str(
            ngettext(
                "%(when)s, %(num)d day before",
                "%(when)s, %(num)d days before",
                end["warned_days_before"],
                when=_moment(end["warned_at"], zone),
            )
        )
    return Section(
        _("The end"),
        facts=_known(
            (_("Last day of the membership"), _last_day(end["ended_at"], zone)),
            (_("First notice accepted"), warned),
            (_("Carried out"), _moment(end["carried_out_at"], zone)),
            (_("Access until"), _last_day(end["access_ends_at"], zone)),
            (_("Profiles and lists saved until"), _last_day(end["saved_until_at"], zone)),
        ),
    )


def _billing(record: dict[str, Any], zone: ZoneInfo) -> Section:
    words = {
        OrderKind.STOP: _("Charge nothing more"),
        OrderKind.UNDO: _("Go on charging as before"),
        OrderKind.RESTART: _("Begin charging again"),
        OrderKind.REFUND: _("Pay a charge back"),
    }
    states = {
        OrderState.QUEUED: _("not confirmed yet"),
        OrderState.WORKING: _("not confirmed yet"),
        OrderState.FAILED: _("refused; an operator looks into it"),
        OrderState.SUPERSEDED: _("taken back before it went out"),
    }
    return Section(
        _("What the payment provider was told"),
        None if record["billing"] else _("Nothing: nothing was being charged."),
        items=[
            Item(
                words.get(order["kind"], order["kind"]),
                _known(
                    (_("Ordered"), _moment(order["ordered_at"], zone)),
                    (
                        _("Confirmed"),
                        states.get(order["state"]) or _moment(order["confirmed_at"], zone),
                    ),
                    (_("Given back"), _given_back(order)),
                    (_("The provider's reference"), order["provider_reference"]),
                    *_read_back(order["read_back"], zone),
                    (_("Key of the order"), order["key"]),
                ),
            )
            for order in record["billing"]
        ],
    )


def _given_back(order: dict[str, Any]) -> str | None:
    # A record of an earlier version does not say it.
    minor = order.get("refunded_minor")
    return None if minor is None else wording.money(minor, order["currency"])


def _read_back(found: dict[str, Any] | None, zone: ZoneInfo) -> list[tuple[str, str | None]]:
    """What the provider said when it was asked again after the change."""
    if found is None:
        return []
    if found["status"] == SubscriptionStatus.ENDED:
        said = _("The subscription has ended")
    elif found["stopping"]:
        said = _("Nothing more is charged")
    else:
        said = _("Charging goes on")
    paid = found["paid_through"]
    return [
        (_("Asked again, it said"), said),
        (_("Paid until, as it says"), None if paid is None else _last_day(paid, zone)),
        (_("Next charge, as it says"), _day(found["next_charge_at"], zone)),
    ]


def _afterwards(record: dict[str, Any], zone: ZoneInfo) -> list[Section]:
    words = {
        "came_back": _("The member came back."),
        "payment_declined": _("The payment of the return was declined; the end holds again."),
        "returned_elsewhere": _("The member came back."),
        "lapse_reversed": _("The end was taken back."),
        "erasure_requested": _("The member asked for the data to be deleted for good."),
        "purged": _("The member's data was deleted for good."),
    }
    facts = [(_day(event["at"], zone) or "", words[event["code"]]) for event in record["afterwards"]]
    return [Section(_("What happened afterwards"), facts=facts)] if facts else []


def _known(*facts: tuple[str, str | None]) -> Facts:
    return [(name, value) for name, value in facts if value]


def _instant(iso: str | None) -> datetime | None:
    return None if iso is None else datetime.fromisoformat(iso)


def _moment(iso: str | None, zone: ZoneInfo) -> str | None:
    return None if iso is None else wording.date_and_time(datetime.fromisoformat(iso), zone)


def _day(iso: str | None, zone: ZoneInfo) -> str | None:
    return None if iso is None else wording.short_date(datetime.fromisoformat(iso), zone)


def _last_day(iso: str | None, zone: ZoneInfo) -> str:
    return "" if iso is None else wording.last_day_short(datetime.fromisoformat(iso), zone)
