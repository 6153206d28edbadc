from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from models import Member
from tests import factories


def test_a_member_is_written_and_read_back_on_both_databases(app: Flask, session: Session) -> None:
    row = factories.stopped_using(session)
    assert session.scalar(select(Member.last_sign_of_life_at)) == row.last_used_at
