"""The outside world as this project sees it. Adapters implement these; app.py hands them over."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from domain.errors import BillingPermanent
from domain.money import Money


class Clock(Protocol):
    """The only source of the present instant."""

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""

    def booted_at(self) -> datetime:
        """When this machine started, by this clock: the same instant at every look, unless somebody sets the clock."""


class Frame(tuple[str, ...]):
    """What is the same in many texts, cut where the words of each stand. It is one with itself only."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


class Pieced:
    """A text that knows what it is made of: the pieces of a frame, and between any two of them a word.

    It is put together by whoever reads it (``str``): a mail that goes out is read by nobody.
    """

    __slots__ = ("frame", "words")

    def __init__(self, frame: Frame, words: Sequence[str]) -> None:
        self.frame, self.words = frame, words

    def __str__(self) -> str:
        whole = [""] * (2 * len(self.words) + 1)
        whole[::2], whole[1::2] = self.frame, self.words
        return "".join(whole)


Text = str | Pieced


class Mail(NamedTuple):
    """One message as it goes out, rendered. Addresses and header values hold no line breaks.

    ``return_path`` is where bounces go, if not to the sender; ``calendar`` is an iCalendar to attach.
    """

    to: str
    subject: str
    text: Text
    html: Text
    message_id: str
    headers: Mapping[str, str]
    return_path: str | None = None
    calendar: str | None = None


class MailResult(NamedTuple):
    """What the server said. ``code`` is the SMTP reply code, or 0 when there was none.

    ``accepted`` is true only for a positive reply to the final dot. A refusal is for good (``permanent``) or for now.
    ``recipient_refused`` says that the refusal was of this address (the reply to RCPT), not of us or of the text: with
    a permanent code of a mailbox (550, 551, 553) that is a hard bounce.
    ``server_down`` says that nothing can be sent at the moment, so the attempt does not count against the message;
    ``unconnected`` that there was not even a connection, as where a server takes no more of them from one host.
    """

    accepted: bool
    code: int
    reply: str
    permanent: bool = False
    recipient_refused: bool = False
    server_down: bool = False
    unconnected: bool = False


Prepared = Any
"""A mail as its mailer has prepared it for a connection."""


class MailExchange(Protocol):
    """One message under way on an open connection."""

    def fileno(self) -> int:
        """Of the connection: by it the system tells when the server has said something."""

    def go_on(self) -> MailResult | None:
        """Hear what the server has said, and say what follows. None: there is more to come. It waits for nothing.

        To be called at once, whenever there is something to hear, and now and then besides: for the time limit.
        """

    @property
    def untold(self) -> bool:
        """Of one whose server is down: nothing of its text has gone out, so that ``send`` may try it once more."""


class MailConnection(Protocol):
    """For one message at a time, and one thread at a time, which need not be the one that made it.

    Neither raises for what a server, a line or an address does.
    """

    def send(self, mail: Mail | Prepared) -> MailResult:
        """Send one message, and wait; opens the connection where it is not open."""

    def begin(self, mail: Mail | Prepared) -> MailExchange | None:
        """Send one message on a connection that is open, without waiting. None where only ``send`` can do it."""


class Mailer(Protocol):
    def connect(self) -> "MailSession": ...

    def prepare(self, mails: Sequence[Mail]) -> Sequence[Prepared]:
        """Do for several mails what can be done before they are sent, in their order.

        An address that is none shows when its mail is sent. Raises ValueError for a text that cannot be written.
        """

    def written(self, mail: Mail) -> bytes:
        """The message as it would go out, headers and all. Raises ValueError for an address that is none."""


class MailSession(Protocol):
    """A context manager around one reused connection."""

    def __enter__(self) -> MailConnection: ...

    def __exit__(self, *exc: object) -> None: ...


class Dns(Protocol):
    """What the domain name system says about a name. Every question may raise DnsAway."""

    def knows_the_root(self) -> bool:
        """Whether whoever answers here knows the internet's names: one that is shut in denies every name."""

    def texts(self, name: str) -> list[str]:
        """Its TXT records, each in one piece."""

    def mail_hosts(self, name: str) -> list[str]:
        """Its MX hosts, the preferred first; an empty one says that it takes no mail (RFC 7505)."""

    def addresses(self, name: str) -> list[str]:
        """Its IPv4 and IPv6 addresses."""


@dataclass(frozen=True, slots=True)
class WaitingMail:
    """A mail in a mailbox: what the mailbox calls it while the visit lasts, and its bytes, if long its beginning."""

    name: str
    raw: bytes


class MailboxVisit(Protocol):
    """One look into a mailbox. Every step may raise MailboxAway; what was not taken out or put aside is there again."""

    def waiting(self) -> Iterator[WaitingMail]:
        """What lies in it, oldest first; reading changes nothing, not even that it counts as unread."""

    def take_out(self, mail: WaitingMail) -> None:
        """Remove it for good."""

    def put_aside(self, mail: WaitingMail) -> None:
        """Leave it to a person, in a folder where it will not be found again."""


class Mailbox(Protocol):
    """Where mail servers send what they could not deliver."""

    def visit(self) -> AbstractContextManager[MailboxVisit]:
        """Entering it opens the mailbox; raises MailboxAway."""


@dataclass(frozen=True, slots=True)
class Customer:
    """Whom a provider charges, as far as it tells: what an import makes a member of."""

    ref: str
    email: str | None = None
    name: str | None = None
    locale: str | None = None
    external_id: str | None = None
    joined_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a provider says of a subscription at this instant. Money in minor units; instants aware.

    ``status`` is one of domain.policy.SubscriptionStatus. ``stopping``: nothing more is charged, and it ends with what
    is paid. ``next_charge_at`` is None when nothing more is charged.
    """

    billing_ref: str
    status: str
    stopping: bool = False
    price_minor: int | None = None
    currency: str | None = None
    interval: str | None = None
    plan: str | None = None
    started_at: datetime | None = None
    period_start: datetime | None = None
    paid_through: datetime | None = None
    next_charge_at: datetime | None = None
    customer: Customer | None = None
    continues: str | None = None
    """The reference of the subscription that this one was begun for, by a restart."""
    billed_by: str | None = None
    """The app store or partner that charges for it by itself; None: the provider does."""

    @property
    def can_stop(self) -> bool:
        """Whether the provider ends it when asked: what somebody else bills only the member can end, there."""
        return self.billed_by is None

    @property
    def charges_on(self) -> bool:
        """Whether money will be taken again unless somebody stops it."""
        return self.status != "ended" and not self.stopping


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the provider's subscriptions; ``cursor`` asks for the next one, None: this was the last."""

    subscriptions: tuple[Subscription, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Charge:
    """Money that was taken for a period, and how much of it has gone back."""

    period_start: datetime
    period_end: datetime | None
    charged_at: datetime
    amount_minor: int
    refunded_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class BillingReceipt:
    """What the provider says it has done: its reference, and the day of the next charge where there is one.

    ``billing_ref`` is the subscription's new reference where there is a new one. ``read_back`` is what the provider
    said when asked again after the change; of two receipts it makes no difference.
    """

    reference: str
    next_charge_at: datetime | None = None
    billing_ref: str | None = None
    read_back: Subscription | None = field(default=None, compare=False)
    refunded: Money | None = None
    """Of a refund: what has gone back under this key, nothing included; None where the provider does not say."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What a provider says later of an order that it had only taken, by the order's key."""

    key: str
    outcome: BillingReceipt | BillingPermanent


class Billing(Protocol):
    """A billing provider. Every call has a timeout of its own; what is written is read back into the receipt.

    A call that writes is idempotent by ``key``: asked again, also after days, it gives the receipt it gave and does
    nothing again. What is so already (a stop of what has ended) is a success. A failure is one of the BillingErrors:
    BillingTemporary when the outcome is unknown or to be had later, BillingRefused when the provider declines (an
    attempt with a new key may succeed), BillingUnknown for a reference it does not know, BillingGone where the
    subscription is over and cannot do this any more, BillingElsewhere where it turns out only now that somebody else
    charges for it by itself, any other BillingPermanent where only an operator can help.
    """

    def read(self, billing_ref: str, *, now: datetime) -> Subscription:
        """The subscription as it is now; one that has ended is told as ``ended`` for as long as it is known."""

    def list(self, cursor: str | None, *, limit: int, now: datetime) -> Page:
        """The subscriptions after a cursor, None for the first ones; those that have ended may be missing."""

    def charges(self, billing_ref: str, *, since: datetime) -> Sequence[Charge] | None:
        """What was charged at ``since`` or later, oldest first; None where the provider does not tell."""

    def stop(self, billing_ref: str, *, key: str, now: datetime, at_once: bool = False) -> BillingReceipt:
        """No further charge; access runs to the end of what is paid. ``at_once``: it is over now, see refund."""

    def undo(self, billing_ref: str, *, key: str, now: datetime) -> BillingReceipt:
        """Take a stop back while the paid period runs: charged again on the same day as before."""

    def restart(
        self, billing_ref: str, *, price_minor: int, currency: str, interval: str, key: str, now: datetime
    ) -> BillingReceipt:
        """Start paying again as of ``now``: a new billing date, charged once for the period that starts."""

    def news(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> Sequence[str | Acknowledged]:
        """The subscriptions that a webhook of the provider's is about: they are read anew, whatever it says of them.
        Or what it acknowledges, where it carries orders out later (BillingPending).

        ``body`` is as it came, byte by byte; ``headers`` find names in any case. Raises NotSigned for what is not the
        provider's, and NotFound where the provider sends none. Kinds that nobody here needs name no subscription.
        """

    def refund(
        self, billing_ref: str, *, since: datetime, key: str, now: datetime, pro_rata: bool = False
    ) -> BillingReceipt:
        """Give back what was charged for periods that start at ``since`` or later.

        ``pro_rata``: and of the period that ``since`` falls into, the share that lies after it, see money.pro_rata.
        """


class Outcome(StrEnum):
    """What a webhook call came to. How long it is tried again, and what for, is for who called."""

    ACCEPTED = "accepted"  # 2xx
    GONE = "gone"  # 410: no more calls to this address, please
    TEMPORARY = "temporary"  # no answer, 408, 425, 429 or 5xx: the same call may be accepted later
    PERMANENT = "permanent"  # any other answer, redirects too, or an address that must not be called


@dataclass(frozen=True, slots=True)
class WebhookReply:
    """What became of one call. ``status`` is 0 where there was no answer; ``text`` says in a line what happened.

    ``text`` is ours, with nothing of what was sent. ``body`` is what the other side said, cut at 64 kB; it may
    hold anything. ``retry_after`` is in seconds, where the other side named some.
    """

    outcome: Outcome
    status: int
    text: str
    body: bytes = b""
    retry_after: int | None = None

    @property
    def nobody_there(self) -> bool:
        """Nothing can be delivered at the moment, whatever it is: no answer, none asked for, or too much to do."""
        return self.status in (0, 429, 502, 503, 504)


class WebhookSender(Protocol):
    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookReply:
        """Post JSON that is signed already; never raises for what an address, a line or the other side does.

        Takes half a minute at most, follows no redirect, and reaches no address inside the operator's own networks
        unless the installation allows it.
        """
