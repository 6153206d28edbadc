"""A notice in words, in the language of the present locale: the banner here and the API say the same."""

from dataclasses import dataclass

from flask_babel import gettext

from services import wording
from services.notice import Notice, State
from settings import Settings


@dataclass(frozen=True, slots=True)
class Words:
    title: str
    text: str
    action: str
    """What the button that leads to the page of the decision says."""


def in_words(notice: Notice, settings: Settings) -> Words:
    zone = settings.zone
    until = wording.up_to_and_including(notice.deadline, zone)
    if notice.state is State.OPEN:
        return Words(
            title=gettext("Keep your membership, or end it?"),
            text=f"{_why(notice, settings)} {_silence(notice, settings)}",
            action=gettext("Answer"),
        )
    if notice.state is State.TOLD:
        return Words(
            title=gettext("We cannot end this membership for you"),
            text=wording.billed_elsewhere(notice.billed_by),
            action=gettext("See how to end it"),
        )
    if notice.state is State.KEPT:
        return Words(
            title=gettext("Your membership continues"),
            text=gettext("You told us to keep it. You can change this %(until)s.", until=until),
            action=gettext("Change this"),
        )
    return Words(
        title=gettext("Your membership ends on %(day)s", day=wording.last_day_short(notice.deadline, zone)),
        text=gettext("You told us to end it. You can change this %(until)s.", until=until),
        action=gettext("Change this"),
    )


def _why(notice: Notice, settings: Settings) -> str:
    return wording.decision_sentence_to_member(
        notice.rule,
        service=settings.service_name,
        joined_at=notice.facts.joined_at,
        last_used_at=notice.facts.last_used_at,
        sign_of_life_at=notice.facts.sign_of_life_at,
        months=notice.facts.months,
        zone=settings.zone,
    )


def _silence(notice: Notice, settings: Settings) -> str:
    if notice.ends_by_silence:
        day = wording.last_day(notice.deadline, settings.zone)
        return str(gettext("If we hear nothing from you, we end your membership on %(day)s.", day=day))
    if notice.billed_by is not None:
        return wording.billed_elsewhere(notice.billed_by)
    until = wording.up_to_and_including(notice.deadline, settings.zone)
    return str(gettext("Please tell us %(until)s. If we hear nothing from you, it continues as it is.", until=until))
