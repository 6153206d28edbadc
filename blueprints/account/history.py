"""Events in the member's words. What has no words here is internal: rounds, retries, bookkeeping."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from flask_babel import lazy_gettext

from domain.lifecycle import OrderKind
from domain.notices import Kind
from services.account import Happening

WORDS = {
    "answered_keep": lazy_gettext("You chose to keep your membership."),
    "answered_lapse": lazy_gettext("You chose to end your membership."),
    "kept_unasked": lazy_gettext("You chose to keep your membership."),
    "said_not_mine": lazy_gettext(
        "Somebody told us by a link from our mail: not my membership, or the member has died."
    ),
    "address_changed": lazy_gettext("Your address changed, so we asked again at the new one."),
    "reminders_declined": lazy_gettext("You asked us not to remind you of our question."),
    "reminders_wanted": lazy_gettext("You asked us to remind you of our question after all."),
    "email_changed": lazy_gettext("You changed your e-mail address."),
    "email_change_refused": lazy_gettext("Somebody wanted to change your e-mail address; you did not agree."),
    "language_chosen": lazy_gettext("You chose the language of our mails."),
    "exempted": lazy_gettext("We took your membership out of this programme."),
    "exemption_ended": lazy_gettext("Your membership is part of this programme again."),
    "lapse_reversed": lazy_gettext("We took back the end of your membership."),
    "came_back": lazy_gettext("You came back."),
    "payment_declined": lazy_gettext("Your payment was declined, and nothing was charged."),
    "returned_elsewhere": lazy_gettext("You came back."),
    "erasure_requested": lazy_gettext("You asked us to delete your data for good."),
}
CLOSED = {
    "kept": lazy_gettext("The month ended: your membership continues, as you chose."),
    "lapsed": lazy_gettext("Your membership ended."),
    "returned": lazy_gettext("You had used it meanwhile, so nothing ended."),
    "exempted": lazy_gettext("Your membership is not part of this programme, so nothing ended."),
    "withdrawn": lazy_gettext("We withdrew our question: nothing ended because of it."),
    "unreachable": lazy_gettext("Our mail did not reach you, so nothing ended."),
    "told": lazy_gettext("We told you how to end it where you pay for it."),
}
MAILED = {
    Kind.WARNING: lazy_gettext("We asked you by e-mail whether to keep your membership."),
    Kind.REMINDER: lazy_gettext("We sent you a second notice by e-mail."),
    Kind.LAST_CALL: lazy_gettext("We sent you a last notice by e-mail."),
    Kind.DEADLINE_MOVED: lazy_gettext("We told you by e-mail of a later day."),
    Kind.WITHDRAWN: lazy_gettext("We told you by e-mail to ignore our question."),
    Kind.RETURNED: lazy_gettext("We confirmed by e-mail that your membership continues."),
    Kind.RECEIPT_KEEP: lazy_gettext("We confirmed your answer by e-mail."),
    Kind.RECEIPT_LAPSE: lazy_gettext("We confirmed your answer by e-mail."),
    Kind.LAPSED: lazy_gettext("We told you by e-mail that your membership has ended, and what is saved."),
    Kind.TOLD: lazy_gettext("We told you by e-mail that only you can end your membership."),
    Kind.USED_AFTER_END: lazy_gettext("We asked you by e-mail whether the end you chose still holds."),
    Kind.END_UNCLEAR: lazy_gettext(
        "We asked you by e-mail which membership somebody wanted to end without signing in."
    ),
    Kind.WELCOME_BACK: lazy_gettext("We confirmed your return by e-mail."),
    Kind.LAST_CHANCE: lazy_gettext("We told you by e-mail until when your data is saved."),
}
SENT = MAILED | {
    Kind.SIGN_IN: lazy_gettext("We sent you a link to sign in."),
    Kind.ERASE_CONFIRM: lazy_gettext("We asked you by e-mail to confirm that your data is to be deleted for good."),
    Kind.NEW_ADDRESS: lazy_gettext("We sent a link to a new address, to confirm it."),
    Kind.OLD_ADDRESS: lazy_gettext("We asked the address we write to whether mails may go to a new one."),
    Kind.ADDRESS_CHANGED: lazy_gettext("We told the earlier address that mails now go to a new one."),
    Kind.ERASED: lazy_gettext("We confirmed by e-mail that your data is deleted for good."),
}
"""Every mail there is to a member: the history tells those of this programme, the download all."""
GIVEN_BACK = lazy_gettext("What you had paid for the time after the end went back to you.")
NOT_DELIVERED = lazy_gettext("A mail to you could not be delivered.")


@dataclass(frozen=True, slots=True)
class Happened:
    at: datetime
    words: str


def in_words(events: Iterable[Happening]) -> list[Happened]:
    return [Happened(event.at, str(words)) for event in events if (words := _words(event)) is not None]


def _words(event: Happening) -> object | None:
    if event.code == "case_closed":
        return CLOSED.get(event.detail or "")
    if event.code == "mail_accepted":
        return MAILED.get(Kind(event.detail)) if event.detail in list(Kind) else None
    if event.code == "billing_done" and event.detail == OrderKind.REFUND:
        return GIVEN_BACK
    if event.code in ("mail_bounced", "mail_failed"):
        return NOT_DELIVERED
    return WORDS.get(event.code)
