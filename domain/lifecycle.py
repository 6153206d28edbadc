"""The states a member, a campaign, a case, a message and a billing order can be in, and which of them are ends.

The transitions themselves are conditions of the statements in services/; the database holds the words (CHECK).
"""

from enum import StrEnum


class MemberStatus(StrEnum):
    ACTIVE = "active"
    ENDED = "ended"  # left some other way
    LAPSED = "lapsed"  # ended by this programme, data kept
    PURGED = "purged"  # data erased


class MailState(StrEnum):
    GOOD = "good"
    BOUNCED = "bounced"
    COMPLAINED = "complained"


class CampaignState(StrEnum):
    DRAFT = "draft"
    HELD = "held"
    OPEN = "open"
    CLOSED = "closed"
    CANCELLED = "cancelled"


class CaseState(StrEnum):
    OPEN = "open"
    KEPT = "kept"
    LAPSED = "lapsed"
    RETURNED = "returned"
    EXEMPTED = "exempted"
    WITHDRAWN = "withdrawn"
    UNREACHABLE = "unreachable"
    TOLD = "told"


class Answer(StrEnum):
    KEEP = "keep"
    LAPSE = "lapse"


class Through(StrEnum):
    """How an answer came in."""

    LINK = "link"  # the check-in link of a mail
    ACCOUNT = "account"  # signed in
    PUBLIC = "public"  # the page for ending without signing in
    OPERATOR = "operator"  # on the member's behalf, with a reason
    SILENCE = "silence"  # ON_SILENCE=keep


class Rule(StrEnum):
    NEVER_USED = "never_used"
    STOPPED_USING = "stopped_using"
    OWN_WISH = "own_wish"  # a member who ended the membership without having been asked


class MessageState(StrEnum):
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    BOUNCED = "bounced"
    OBSOLETE = "obsolete"


class OrderKind(StrEnum):
    STOP = "stop"
    UNDO = "undo"
    RESTART = "restart"
    REFUND = "refund"


class OrderState(StrEnum):
    QUEUED = "queued"
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"
    SUPERSEDED = "superseded"


UNFINISHED_ORDERS = (OrderState.QUEUED, OrderState.WORKING)
"""An order the provider may still have to carry out: a failed one waits for an operator, see billing_desk.retry."""


class HoldReason(StrEnum):
    """Why a campaign stopped itself (design promise 8), or who stopped it."""

    TOO_MANY = "too_many"
    SHARE_JUMPED = "share_jumped"
    FEED_SILENT = "feed_silent"
    FEED_INCOMPLETE = "feed_incomplete"
    BOUNCES = "bounces"
    OPERATOR = "operator"
    RESTORED = "restored"
