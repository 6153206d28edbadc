"""The shapes of what is sent and answered. The document shows them; only what is sent is held to them.

They say which names there are and of which type. What a value may be is decided where the values of files are
(services/files), once, so that both get the same reasons.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from services.files.reading import Counts

Instant = Annotated[
    str,
    Field(
        description="ISO 8601 with an offset, or a date: the start of that day in the service's time zone",
        examples=["2026-05-30T20:15:00+02:00", "2026-05-30"],
    ),
]
GivenInstant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Sent(BaseModel):
    """Strict, because a number for a text is a mistake of the program that sends it; unknown names are one too."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Given(BaseModel):
    model_config = ConfigDict(extra="forbid")


# Members


class MemberIn(Sent):
    """One member; a name that is missing leaves what is on record, `null` clears it. docs/importing.md says more."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "email": "eva@example.org",
                    "name": "Eva Blum",
                    "locale": "de-AT",
                    "joined_at": "2024-01-05",
                    "last_used_at": "2026-05-30T20:15:00+02:00",
                    "plan": "Standard",
                    "price": "12.99",
                    "currency": "EUR",
                    "billing_interval": "month",
                    "subscription_status": "active",
                    "paid_through": "2026-07-01",
                }
            ]
        }
    )

    external_id: str | None = Field(None, description="if it is there, the one in the address")
    email: str
    joined_at: Instant
    name: str | None = None
    locale: str | None = Field(None, description="BCP 47, such as de or de-AT")
    last_used_at: Instant | None = Field(None, description="is only ever raised")
    plan: str | None = None
    price: str | int | float | None = Field(None, description="a decimal such as 12.99; needs a currency beside it")
    currency: str | None = Field(None, description="ISO 4217, such as EUR")
    billing_interval: str | None = Field(None, description="month or year")
    subscription_status: str | None = Field(None, description="active, trial, paused, past_due or ended")
    paid_through: Instant | None = None
    billed_by: str | None = Field(None, description="one of BILLED_BY, where an app store or a partner bills it")
    exempt_reason: str | None = Field(None, description="why this member is never asked")


class MembersIn(Sent):
    """Up to 10,000 members. One that cannot be taken is a reject and stops no other."""

    members: list[Any] = Field(
        max_length=10_000,
        description="objects as in PUT /members/{external_id}, each with its external_id",
        examples=[[{"external_id": "10042", "email": "eva@example.org", "joined_at": "2024-01-05"}]],
    )


class Written(Given):
    external_id: str
    result: Literal["created", "updated", "unchanged"]


class RejectOut(Given):
    row: int = Field(description="which row, counted from 1")
    external_id: str | None
    reason: str = Field(description="what is wrong, and what would be right")


class MembersCounted(Given):
    created: int
    updated: int
    unchanged: int
    rejected: int
    rejects: list[RejectOut]


class Listed(Given):
    external_id: str
    status: Literal["active", "ended", "lapsed"]
    joined_at: GivenInstant
    last_used_at: GivenInstant | None
    last_sign_of_life_at: GivenInstant
    lapsed_at: GivenInstant | None
    keep_until: GivenInstant | None


class Page(Given):
    members: list[Listed] = Field(description="in the order of their ids")
    next: str | None = Field(description="the cursor of the next page; null on the last one")


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else value


class PageQuery(BaseModel):
    # Lax would also take 1.0 and 1_0 for a whole number.
    model_config = ConfigDict(strict=True)

    limit: Annotated[int, BeforeValidator(_whole)] = Field(100, ge=1, le=1000)
    cursor: str | None = Field(None, description="`next` of the page before")
    status: Literal["active", "ended", "lapsed"] | None = None


class Erasing(Given):
    external_id: str
    state: Literal["waiting"] = Field(description="the payment provider's confirmation is awaited")


class CaseOut(Given):
    month: str | None
    state: str
    rule: str
    answer: str | None
    warned_at: GivenInstant | None
    deadline_at: GivenInstant | None = Field(description="exclusive: the first instant after the day that is named")
    answered_at: GivenInstant | None
    answered_through: str | None


class MessageOut(Given):
    kind: str
    state: str
    due_at: GivenInstant
    sent_at: GivenInstant | None
    attempts: int
    message_id: str | None
    smtp_reply: str | None


class BillingOrderOut(Given):
    kind: str
    state: str
    created_at: GivenInstant
    due_at: GivenInstant
    done_at: GivenInstant | None
    attempts: int
    receipt: str | None
    error: str | None


class EventOut(Given):
    at: GivenInstant
    code: str
    detail: str | None


# Libraries


class Item(Sent):
    ref: str
    title: str
    added_at: str | None = Field(None, description="ISO 8601 with an offset, or a date")


class SavedListIn(Sent):
    kind: str
    name: str
    items: list[Item] = Field(default_factory=list)


class ProfileIn(Sent):
    name: str
    settings: dict[str, Any] = Field(default_factory=dict)
    lists: list[SavedListIn] = Field(default_factory=list)


class LibraryIn(Sent):
    """All a member has: it replaces what was there. Order, settings and dates come out as they went in."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "profiles": [
                        {
                            "name": "Eva",
                            "settings": {"subtitles": "de"},
                            "lists": [
                                {
                                    "kind": "favourites",
                                    "name": "Favourites",
                                    "items": [{"ref": "t-9", "title": "Nine", "added_at": "2025-02-01T20:15:00Z"}],
                                }
                            ],
                        }
                    ]
                }
            ]
        }
    )

    external_id: str | None = Field(None, description="if it is there, the one in the address")
    profiles: list[ProfileIn]


class LibraryOut(Given):
    external_id: str
    profiles: list[ProfileIn]


class MemberOut(Given):
    """Why this member is in or out, and everything that was sent, answered and done."""

    external_id: str
    status: Literal["active", "ended", "lapsed"]
    exempt_reason: str | None
    joined_at: GivenInstant
    last_used_at: GivenInstant | None
    last_sign_of_life_at: GivenInstant
    dormant: bool
    rule: str | None
    reason: str = Field(description="a code: why in or out")
    lapsed_at: GivenInstant | None
    keep_until: GivenInstant | None = Field(description="exclusive: everything is saved until then")
    case: CaseOut | None = Field(description="the live one, or else the latest")
    messages: list[MessageOut]
    billing_orders: list[BillingOrderOut]
    events: list[EventOut]
    library: LibraryOut


# Uses


class UsesIn(Sent):
    """Up to 10,000 uses. One that cannot be taken is a reject and stops no other."""

    source: str = Field("activity", min_length=1, max_length=100, description="the name of the feed")
    through: Instant | None = Field(None, description="the feed is complete up to then; never taken back")
    uses: list[Any] = Field(
        max_length=10_000,
        description="objects of external_id, used_at and type; a type is needed where USE_TYPES is set",
        examples=[[{"external_id": "10042", "used_at": "2026-05-30T20:15:00+02:00", "type": "play"}]],
    )


class UsesQuery(BaseModel):
    source: str = Field("activity", min_length=1, max_length=100, description="as in the JSON body, for other types")
    through: str | None = Field(None, description="as in the JSON body, for other types")


class UsesCounted(Given):
    updated: int = Field(description="members whose last use moved")
    unchanged: int = Field(description="uses that were known, or earlier than the last one")
    ignored: int = Field(description="events of types that are no use")
    rejected: int
    rejects: list[RejectOut]


def counted(counts: Counts, *names: str) -> dict[str, int]:
    return {name: getattr(counts, name) for name in names}


# The notice


class NoticeQuery(BaseModel):
    locale: str | None = Field(None, max_length=35, description="BCP 47; without it the member's own language")
    amounts: Literal["true", "false"] = Field("false", description="whether to say what is paid")


class Amount(Given):
    minor: int
    currency: str
    text: str


class Paid(Amount):
    estimated: bool = Field(description="the present price times the periods; else what the provider has charged")


class Amounts(Given):
    price: Amount | None = Field(description="what is paid for each billing period")
    interval: str | None
    paid_since: Paid | None = Field(description="what was paid since the last sign of life")


class NoticeOut(Given):
    """What a banner shows: the same words, at the same time, as the one on the pages here."""

    state: Literal["open", "kept", "lapsing", "told"]
    title: str
    text: str
    action: str = Field(description="what the link says")
    link: str = Field(description="the page where this member answers; nobody else should see it")
    language: str
    deadline: str = Field(description="the last day, such as 2026-06-30", json_schema_extra={"format": "date"})
    deadline_at: GivenInstant = Field(description="exclusive: the first instant after that day")
    ends_by_silence: bool
    answer: Literal["keep", "lapse"] | None
    amounts: Amounts | None = Field(description="null unless it was asked for")


# Billing


class SubscriptionIn(Sent):
    """What holds of a subscription now."""

    billing_ref: str | None = Field(None, max_length=200)
    status: Literal["active", "trial", "paused", "past_due", "ended"]
    stopping: bool | None = Field(None, description="nothing more is charged, and it ends with what is paid")
    price_minor: int | None = Field(None, ge=0)
    currency: str | None = Field(None, min_length=3, max_length=3)
    interval: str | None = Field(None, min_length=1, max_length=10)
    billed_by: str | None = Field(
        None, min_length=1, max_length=50, description="who charges for it, where it is somebody else"
    )
    period_start: GivenInstant | None = None
    paid_through: GivenInstant | None = None
    next_charge_at: GivenInstant | None = None


class AcknowledgementIn(Sent):
    """What became of a billing order."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "done", "reference": "INV-7"}]})

    status: Literal["done", "refused", "unknown", "gone", "elsewhere", "failed"]
    reference: str | None = Field(
        None, max_length=200, description="where you see it, such as the number of an invoice"
    )
    reason: str | None = Field(None, description="why it is not done, in a sentence for an operator")
    billed_by: str | None = Field(
        None, min_length=1, max_length=50, description="with `elsewhere`: the app store or partner that charges for it"
    )
    pay_at: str | None = Field(None, description="of a payment that was declined: where the member can pay otherwise")
    billing_ref: str | None = Field(
        None, min_length=1, max_length=200, description="the new reference, where there is one"
    )
    next_charge_at: GivenInstant | None = None
    refunded_minor: int | None = Field(None, ge=0, description="what went back, in the currency's smallest unit")
    currency: str | None = Field(None, min_length=3, max_length=3)
    subscription: SubscriptionIn | None = None


# Problems


class FieldProblem(Given):
    pointer: str = Field(description="JSON Pointer into what was sent")
    detail: str


class Problem(BaseModel):
    """RFC 9457. `library` and `keep_until` are there where a lapsed member's library must stay as it is."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = Field(default_factory=list)
    library: LibraryOut | None = None
    keep_until: GivenInstant | None = None
