"""Who is signed in: a permanent session that names a membership, its session generation, and the row of this device."""

import re

from flask import g, request, session
from flask_login import LoginManager, UserMixin, login_user
from sqlalchemy import bindparam, func
from werkzeug.wrappers import Response

from blueprints.auth.paths import to_sign_in
from domain.devices import device_of
from domain.lifecycle import MemberStatus
from models import Case, Member, SignIn, db
from services import sign_ins
from services.installation import installed

login_manager = LoginManager()
# The session is signed, HttpOnly and bound to a generation; phones change their address all day.
login_manager.session_protection = None

NAME = re.compile(r"([0-9a-f]{32})\.([0-9]{1,9})", re.ASCII)


class SignedIn(UserMixin):
    """The signed-in member of this request: ``current_user.member``, as it was when the request began.

    ``asked``: what was answered in the live case it had then, or "open"; None: there was none, and no page has to look
    for what to say of it.
    """

    def __init__(self, member: Member, *, asked: str | None = None) -> None:
        self.member = member
        self.asked = asked

    def get_id(self) -> str:
        # Names a membership for as long as nobody asks to be signed out everywhere.
        return f"{self.member.public_id}.{self.member.session_generation}"


ASKED = (
    db.select(func.coalesce(Case.answer, "open"))
    .where(Case.member_id == Member.id, Case.closed_at.is_(None))
    .scalar_subquery()
)
WHO = db.select(Member, ASKED).where(
    Member.public_id == bindparam("public_id"),
    Member.session_generation == bindparam("generation"),
    Member.status != MemberStatus.PURGED,
)
"""Made once: every page of whoever is signed in begins with it."""
ON_THIS_DEVICE = WHO.where(
    db.exists().where(
        SignIn.public_id == bindparam("device"), SignIn.member_id == Member.id, SignIn.at > bindparam("since")
    )
)
DEVICE = "device"
"""What the session calls the row of this device."""


@login_manager.user_loader
def _load(named: str) -> SignedIn | None:
    known = NAME.fullmatch(named)
    if known is None or g.get("bare"):
        return None
    public_id, generation = known.groups()
    began = db.session().in_transaction()
    named_so = {"public_id": public_id, "generation": int(generation)}
    device = session.get(DEVICE)
    if device is None:
        # A session from before devices were noted: it lasts until its cookie ends, or everything is signed out.
        found = db.session.execute(WHO, named_so).one_or_none()
    else:
        since = installed().clock.now() - sign_ins.LASTS
        found = db.session.execute(ON_THIS_DEVICE, {**named_so, "device": device, "since": since}).one_or_none()
    if not began and request.method not in ("GET", "HEAD", "OPTIONS"):
        # A page that writes takes its lock before its first query, so it must not find this one open.
        if found is not None:
            db.session.expunge(found[0])
        db.session.rollback()
    return None if found is None else SignedIn(found[0], asked=found[1])


@login_manager.unauthorized_handler
def _ask_to_sign_in() -> Response:
    return to_sign_in()


def sign_in_as(member: Member) -> None:
    """Begin a session from nothing, so that nothing of an earlier visitor's is left in it; the language stays.

    It writes, and the caller commits.
    """
    language = session.get("lang")
    kind = device_of(request.user_agent.string)
    device = sign_ins.begin(db.session(), member, kind, installed().clock.now())
    forget_device()
    session.clear()
    session[DEVICE] = device
    if language is not None:
        session["lang"] = language
    session.permanent = True
    login_user(SignedIn(member))


def forget_device() -> None:
    """Whoever was signed in on this device is so no longer. It writes where there was somebody."""
    before = session.pop(DEVICE, None)
    if before is not None:
        sign_ins.end(db.session(), before)
