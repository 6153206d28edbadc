"""`flask members show` for people: what is known of one member, why in or out, what was sent and what happened."""

from datetime import datetime
from typing import Any

import click

from commands.output import echo_pairs, echo_table, instant
from domain import policy
from domain.dates import named_day
from models import Member
from services.wording import decision_sentence, price
from settings import Settings


def print_member(
    member: Member, found: dict[str, Any], settings: Settings, now: datetime, note: str | None = None
) -> None:
    """Print what ``services.evidence`` found, member_evidence and note; the locale is the caller's."""
    zone = settings.zone
    decision = policy.assess(member.facts, settings.policy, now)
    why = decision_sentence(
        decision.code,
        joined_at=member.joined_at,
        last_used_at=member.last_used_at,
        sign_of_life_at=decision.sign_of_life_at,
        months=decision.months,
        zone=zone,
    )

    def at(iso: str | None) -> str | None:
        return None if iso is None else instant(datetime.fromisoformat(iso), zone)

    def last_day(iso: str | None) -> str | None:
        return None if iso is None else f"{named_day(datetime.fromisoformat(iso), zone)}"

    click.echo(f"{member.external_id}: {member.status}, {'dormant' if decision.dormant else 'not dormant'}. {why}")
    click.echo()
    echo_pairs(
        {
            "name": member.name,
            "e-mail": member.email if member.mail_state == "good" else f"{member.email} ({member.mail_state})",
            "joined": at(found["joined_at"]),
            "last used": at(found["last_used_at"]) or "never, as far as is known",
            "last sign of life": at(found["last_sign_of_life_at"]),
            "pays": price(member.price_minor, member.currency, member.billing_interval),
            "plan": member.plan,
            "subscription": member.subscription_status,
            "exempt by an operator": member.operator_exempt_reason,
            "exempt by the member file": member.exempt_reason,
            "lapsed with": last_day(found["lapsed_at"]),
            "saved until": last_day(found["keep_until"]),
        }
    )
    if found["case"] is not None:
        case = found["case"]
        _heading("Asked")
        echo_pairs(
            {
                "round": case["month"] or "none: the member's own wish",
                "state": case["state"],
                "rule": case["rule"],
                "warned": at(case["warned_at"]) or "not yet",
                "last day to answer": last_day(case["deadline_at"]),
                "answer": case["answer"] or "none",
                "answered": at(case["answered_at"]),
                "through": case["answered_through"],
                "noted by an operator": note,
            }
        )
    _table("Mail", found["messages"], {"kind": str, "state": str, "sent_at": at, "smtp_reply": str}, due_at=at)
    _table("Billing", found["billing_orders"], {"kind": str, "state": str, "done_at": at, "receipt": str, "error": str})
    _table("What happened", found["events"], {"at": at, "code": str, "detail": str})
    library = found["library"]["profiles"]
    if library:
        _heading("Library")
        echo_table(
            ("profile", "list", "items"),
            [(one["name"], saved["name"], len(saved["items"])) for one in library for saved in one["lists"]],
            right=[2],
        )


def _heading(text: str) -> None:
    click.echo(f"\n{text}")


def _table(heading: str, rows: list[dict[str, Any]], columns: dict[str, Any], **more: Any) -> None:
    if not rows:
        return
    shown = {**columns, **more}
    _heading(heading)
    echo_table(
        [name.removesuffix("_at").replace("_", " ") for name in shown],
        [[None if row[name] is None else form(row[name]) for name, form in shown.items()] for row in rows],
    )
