"""The members of a tour of all pages: one for each state there is to see, in one language, in one database."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from domain.lifecycle import Answer, Through
from domain.links import Purpose
from domain.notices import Kind
from models import Campaign, Case, ListItem, MagicLink, Member, Profile, SavedList, SignIn
from services import check_in, decisions, magic_links, outbox
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import accept_mails, case_of, opened

LATER = NOW + timedelta(hours=2)
PAST = at("2026-05-31 22:00")
NAMES = {"en": "Mia Carter", "de": "Mia Schröder"}
LIBRARIES = {
    "en": {
        "Mia": {
            "Favourites": [
                "The Long Way Home",
                "Harbour Lights",
                "A Room in Lisbon",
                "Nine Winters",
                "Paper Boats",
                "Salt",
            ],
            "To watch": ["The Cartographer", "Under the Elm", "Second Spring"],
        },
        "Kids": {"Favourites": ["Pip and the Moon", "The Tin Circus"], "To watch": []},
    },
    "de": {
        "Mia": {
            "Favoriten": [
                "Der lange Heimweg",
                "Hafenlichter",
                "Ein Zimmer in Lissabon",
                "Neun Winter",
                "Papierboote",
                "Salz",
            ],
            "Merkliste": ["Die Kartografin", "Unter der Ulme", "Das zweite Frühjahr"],
        },
        "Kinder": {"Favoriten": ["Pip und der Mond", "Der Blechzirkus"], "Merkliste": []},
    },
}

CASES: dict[str, dict[str, Any]] = {
    "open": {},
    "stopped": {"joined_at": at("2022-05-02"), "last_used_at": at("2024-03-01 20:15")},
    "annual": {
        "billing_interval": "year",
        "price_minor": 9900,
        "plan": "Family",
        "paid_through": at("2026-11-14 23:00"),
    },
    "pressed-at-once": {},
    "to-keep": {},
    "to-end": {},
    "to-decline": {},
    "not-mine": {},
    "used-since": {},
    "exempted": {},
    "withdrawn": {},
    "unreachable": {},
    "waiting": {},
    "overdue": {},
    "kept-by-silence": {},
    "told": {"billed_by": "App Store"},
    "billed-elsewhere": {"billed_by": "App Store"},
    "to-end-elsewhere": {"billed_by": "App Store"},
    "lapsed": {},
    "back": {},
    "ended": {},
    "purged": {},
    "erasing": {},
    "asked-again": {},
    "voided": {},
    "moved": {},
    "longest": {
        "name": "Wolfeschlegelsteinhausenbergerdorff-Featherstonehaugh",
        "plan": "Familien-Jahresmitgliedschaft mit Zusatzpaket",
        "external_id": "LUMIO-2026-000000000000000000000000000000000017",
    },
}
"""State of a check-in page, and the facts of its member that differ."""


class People:
    """``members`` and ``cases`` by state. All addresses of the site that need a token are made here."""

    def __init__(self, session: Session, settings: Settings, language: str) -> None:
        self.session, self.settings = session, settings
        name = NAMES[language]
        common = {"locale": language, "name": name, "paid_through": at("2026-06-14 22:00")}
        self.members = {
            state: factories.member(
                session,
                **{"external_id": f"K-{number}", "email": f"mia{number}@example.org", **common, **facts},
            )
            for number, (state, facts) in enumerate(CASES.items(), 1001)
        }
        self.using = factories.using(session, **common, external_id="K-2001", email="using@example.org")
        self.gone = factories.lapsed(session, **common, external_id="K-2002", email="gone@example.org")
        self.gone_annual = factories.lapsed(
            session,
            **common | {"paid_through": at("2026-11-30 23:00")},
            access_ends_at=at("2026-11-30 23:00"),
            keep_until=at("2027-09-30 22:00"),
            external_id="K-2003",
            email="annual@example.org",
        )
        self.gone_long = factories.lapsed(
            session, **common, keep_until=at("2026-05-31 22:00"), external_id="K-2004", email="long@example.org"
        )
        for number in (1, 2):
            factories.using(
                session,
                **common,
                external_id=f"K-300{number}",
                email="both@example.org",
                plan=("Solo", "Family")[number - 1],
            )
        for owner in (self.members["open"], self.using, self.gone, self.gone_annual):
            self._library(owner, language)
            session.add(SignIn(member_id=owner.id, device="iphone", at=at("2026-05-21 19:40")))
            session.add(SignIn(member_id=owner.id, device="windows", at=NOW))
        session.commit()
        opened(session, settings, NOW)
        self.cases = {state: case_of(session, member) for state, member in self.members.items()}
        session.commit()
        self._come_about()

    def _come_about(self) -> None:
        session, settings, members = self.session, self.settings, self.members
        for state, answer in (("kept-by-silence", Answer.KEEP), ("voided", Answer.KEEP), ("lapsed", Answer.LAPSE)):
            decisions.answer(session, settings, self.cases[state].id, answer, Through.LINK, NOW)
        decisions.void_keep(session, settings, members["voided"].id, "a scanner", NOW)
        session.commit()
        accept_mails(session, settings, NOW)

        def case(of: str, **values: Any) -> None:
            session.execute(update(Case).where(Case.id == self.cases[of].id).values(**values))

        def member(of: str, **values: Any) -> None:
            session.execute(update(Member).where(Member.id == members[of].id).values(**values))

        ended = {"lapsed_at": PAST, "access_ends_at": PAST, "keep_until": at("2027-03-31 22:00"), "status": "lapsed"}
        held = Campaign(
            month="2026-05",
            state="held",
            hold_reason="operator",
            policy={},
            drafted_at=at("2026-05-01"),
            dormant_count=1,
        )
        session.add(held)
        session.flush()
        member("used-since", last_used_at=LATER)
        member("exempted", operator_exempt_reason="asked us to")
        case("withdrawn", state="withdrawn", closed_at=NOW)
        member("unreachable", mail_state="bounced")
        case("waiting", campaign_id=held.id)
        case("overdue", deadline_at=PAST, warned_at=at("2026-05-02 10:00"))
        case("kept-by-silence", state="kept", closed_at=NOW, answered_through="silence")
        case("told", state="told", closed_at=NOW)
        case("lapsed", state="lapsed", closed_at=NOW, deadline_at=PAST)
        member("lapsed", **ended)
        case("back", state="lapsed", closed_at=NOW, deadline_at=PAST)
        member("back", returned_at=NOW)
        case("ended", state="withdrawn", closed_at=NOW)
        member("ended", status="ended")
        case("purged", state="lapsed", closed_at=NOW, found_joined_at=None, found_sign_of_life_at=None, address=None)
        member(
            "purged",
            status="purged",
            purged_at=NOW,
            external_id=None,
            email=None,
            email_key=None,
            name=None,
            billing_ref=None,
        )
        member("erasing", erase_requested_at=NOW, status="ended")
        case("asked-again", campaign_id=held.id, state="kept", answer="keep", answered_at=PAST, closed_at=PAST)
        session.commit()
        session.expire_all()
        again = self.cases["asked-again"]
        session.add(
            Case(
                member_id=again.member_id,
                campaign_id=self.cases["open"].campaign_id,
                rule="never_used",
                opened_at=NOW,
                found_joined_at=again.found_joined_at,
                found_sign_of_life_at=again.found_sign_of_life_at,
                address=again.address,
            )
        )
        session.commit()

    def device(self, member: Member) -> str | None:
        """Where this member has signed in last, as a session names it."""
        latest = self.session.query(SignIn.public_id).filter_by(member_id=member.id).order_by(SignIn.id.desc())
        found: str | None = latest.limit(1).scalar()
        self.session.commit()
        return found

    def check_in(self, state: str) -> str:
        self.session.expire_all()
        case = self.cases[state]
        # Whoever has moved follows a link that went to the earlier address.
        generation = case.address_generation + (1 if state == "moved" else 0)
        token = check_in.token(self.settings, case.public_id, generation)
        self.session.commit()
        return f"/check-in/{token}"

    def link(self, purpose: Purpose, member: Member, *, over: bool = False, proven: bool = False) -> str:
        """The path of a fresh link for a member; ``over``: one whose time is past, ``proven``: at the new address."""
        begin = {
            Purpose.SIGN_IN: "/sign-in",
            Purpose.ERASE: "/account/erase",
            Purpose.NEW_ADDRESS: "/account/email",
            Purpose.COME_BACK: "/come-back",
        }[purpose]
        assert member.email is not None
        until: datetime = NOW if over else LATER + timedelta(days=300)
        token = magic_links.mint(self.session, purpose, member.id, member.email, until, NOW)
        if purpose is Purpose.NEW_ADDRESS:
            newest = self.session.query(MagicLink.id).order_by(MagicLink.id.desc()).limit(1).scalar()
            self.session.execute(
                update(MagicLink)
                .where(MagicLink.id == newest)
                .values(new_address="mia.new@example.org", proven_at=NOW if proven else None)
            )
        self.session.commit()
        return f"{begin}/{token}"

    def change(self, member: Member, **values: Any) -> None:
        self.session.execute(update(Member).where(Member.id == member.id).values(**values))
        self.session.commit()

    def _library(self, owner: Member, language: str) -> None:
        """Two profiles with lists, some of them longer than a page shows at once."""
        for position, (name, lists) in enumerate(LIBRARIES[language].items()):
            profile = Profile(
                member_id=owner.id, position=position, name=name, settings={"subtitles": language, "autoplay": False}
            )
            self.session.add(profile)
            self.session.flush()
            for order, (kind, titles) in enumerate(lists.items()):
                saved = SavedList(
                    member_id=owner.id, profile_id=profile.id, position=order, kind="favourites", name=kind
                )
                self.session.add(saved)
                self.session.flush()
                self.session.add_all(
                    ListItem(member_id=owner.id, list_id=saved.id, position=place, ref=f"t-{place}", title=title)
                    for place, title in enumerate(titles)
                )

    def receipt_just_went_out(self, state: str) -> None:
        """A notice of this case was accepted a few seconds ago: a press by then may be a scanner's."""
        case = self.cases[state]
        self.session.refresh(case)
        outbox.put(
            self.session, kind=Kind.RECEIPT_KEEP, once_key=f"now:{state}", now=LATER, member=case.member, case=case
        )
        self.session.commit()
        accept_mails(self.session, self.settings, LATER)
        self.session.commit()
