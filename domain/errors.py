"""What can be refused, as types. Blueprints, commands and jobs turn these into pages, lines and records."""


class DormouseError(Exception):
    """The base of every refusal a person may read: its text is one clear sentence."""


class BadValue(DormouseError):
    """A value that cannot be what it should be; the text names the thing and what would be right."""


class NotFound(DormouseError):
    """No such member, campaign, case or link."""


class Refused(DormouseError):
    """The present state does not allow this; the text says which state and what can be done."""


class QuoteChanged(Refused):
    """The price, date or kind shown on the come-back page no longer holds: nothing was ordered."""


class TooMany(Refused):
    """Asked too often; the text says when it can be asked again."""


class DnsAway(DormouseError):
    """No name server has answered, so nothing is known about a name."""


class MailboxAway(DormouseError):
    """The mailbox of bounces cannot be read at the moment; the text says what its server, or the line, said."""


# What a billing provider can answer, see domain/ports.py.


class BillingError(DormouseError):
    """The provider did not do what was asked."""


class BillingTemporary(BillingError):
    """The outcome is unknown or the provider is busy: the same order is tried again with the same key."""


class BillingPermanent(BillingError):
    """The provider refused for good: an operator is shown the order and what to do."""


class BillingRefused(BillingPermanent):
    """The provider declined, a card for one: another attempt, under a new key, may succeed.

    ``pay_at`` is an address at the provider where the member can pay in another way, where there is one.
    """

    def __init__(self, text: str, pay_at: str | None = None) -> None:
        super().__init__(text)
        self.pay_at = pay_at


class BillingUnknown(BillingPermanent):
    """The provider knows no subscription of this reference."""


class BillingGone(BillingPermanent):
    """The subscription is over at the provider, and what was asked can no longer be done with it."""


class BillingElsewhere(BillingPermanent):
    """An app store or a partner charges for it by itself: only the member can end that, there."""

    def __init__(self, text: str, billed_by: str) -> None:
        super().__init__(text)
        self.billed_by = billed_by


class BillingClosed(BillingTemporary):
    """The provider wants no more orders at this address: none is to be sent before an operator has seen to it."""


class NotSigned(DormouseError):
    """A webhook whose signature is missing, wrong or too old."""


class BillingPending(BillingTemporary):
    """The provider has taken the order and will say later that it has carried it out."""
