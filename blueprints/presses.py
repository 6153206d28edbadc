"""Presses behind a mailed link that a machine may have made: the page asks for one more.

The form that asks for it carries a marker that lets the next press through.
"""

from collections.abc import Iterable

from flask import request

from domain.notices import Kind
from models import Member, db
from services import check_in, scanners
from services.installation import installed


def may_be_a_machines(member: Member, kinds: Iterable[Kind] = ()) -> bool:
    """Whether this press has to be made once more: one by what calls itself a bot, or within a minute of such a mail.

    Of a mail that somebody has just asked for and waits for, no ``kinds`` are given: people press within a minute.
    """
    here = installed()
    marker = request.form.get("step", "")
    if check_in.is_second_step(here.settings, marker, member.public_id, 0):
        return False
    if scanners.calls_itself_one(request.user_agent.string):
        return True
    kinds = list(kinds)
    return bool(kinds) and scanners.just_mailed(db.session(), here.clock.now(), member_id=member.id, kinds=kinds)


def marker(member: Member) -> str:
    return check_in.second_step(installed().settings, member.public_id, 0)
