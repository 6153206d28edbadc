"""Who may call the API: a key of this installation, with the scope, in its time, not too often; and nobody else."""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from blueprints.api.operations import BASE, PUBLISHED, Operation
from domain.scopes import Scope
from models import ApiKey
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.web.api import Program, make_key
from tests.web.browser import Browser
from tests.web.everywhere import contents


def address(operation: Operation) -> str:
    return BASE + re.sub("<[a-z_]+:external_id>", "m-1", operation.path)


def statuses(app: Flask, authorization: str | None) -> set[int]:
    """What all operations answer to whoever sends this."""
    headers = {} if authorization is None else {"Authorization": authorization}
    answers = [app.test_client().open(address(one), method=one.method, headers=headers, json={}) for one in PUBLISHED]
    assert len(answers) >= 9
    assert {answer.content_type for answer in answers if answer.status_code >= 400} <= {"application/problem+json"}
    return {answer.status_code for answer in answers}


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer x", "Basic eDp5", "Bearer dormouse_0123456789ab_" + "A" * 43, "Bearer \u00fc"],
)
def test_without_a_key_of_ours_there_is_nothing(app: Flask, session: Session, authorization: str | None) -> None:
    before = contents(session)
    assert statuses(app, authorization) == {401}
    assert contents(session) == before


def test_a_key_of_another_installation_is_no_key(make_app: Callable[..., Flask], app: Flask) -> None:
    """Neither one that was made elsewhere, nor one whose row somebody has copied here."""
    key = make_key(app)
    assert statuses(make_app(secret_key="another installation's key, as long as ours"), f"Bearer {key}") == {401}
    rotated = make_app(
        secret_key="the next key, as long as ours", secret_key_fallbacks=("a key for tests, long enough to sign with",)
    )
    assert 401 not in statuses(rotated, f"Bearer {key}")


def test_a_key_works_until_it_expires(app: Flask, clock: FrozenClock) -> None:
    program = Program(app, make_key(app, expires_at=NOW + timedelta(days=1)))
    assert program.get("/members").status_code == 200
    clock.travel(NOW + timedelta(days=1))
    answer = program.get("/members")
    assert (answer.status_code, answer.get_json()["detail"]) == (401, "This key has expired on 2026-06-04.")
    assert statuses(app, f"Bearer {program.key}") == {401}


def test_a_revoked_key_is_useless_at_once(app: Flask) -> None:
    program = Program(app)
    assert program.get("/members").status_code == 200
    commands = app.test_cli_runner()
    assert commands.invoke(args=["api-key", "revoke", program.key.split("_")[1]]).exit_code == 0
    assert statuses(app, f"Bearer {program.key}") == {401}
    assert "revoked" in commands.invoke(args=["api-key", "list"]).stdout


@pytest.mark.parametrize("scope", list(Scope))
def test_a_key_opens_what_its_scope_says(app: Flask, scope: Scope) -> None:
    key = make_key(app, scope)
    for one in PUBLISHED:
        answer = app.test_client().open(
            address(one), method=one.method, headers={"Authorization": f"bearer {key}"}, json={}
        )
        if one.scope is scope:
            assert answer.status_code not in (401, 403), one
        else:
            assert answer.status_code == 403, one
            assert f'scope="{one.scope}"' in answer.headers["WWW-Authenticate"]


def test_a_session_is_no_key(app: Flask, session: Session) -> None:
    member = factories.member(session, external_id="m-1")
    session.commit()
    browser = Browser(app)
    browser.sign_in_as(member)
    before = contents(session)
    for one in PUBLISHED:
        assert browser.client.open(address(one), method=one.method, json={}).status_code == 401
    assert contents(session) == before


# Once it is made


def test_a_key_is_printed_once_alone_on_the_last_line_and_kept_nowhere(app: Flask, session: Session) -> None:
    result = app.test_cli_runner().invoke(
        args=["api-key", "create", "the shop", "--scope", "members:read", "--scope", "notice:read", "--days", "30"]
    )
    assert result.exit_code == 0
    key = result.output.splitlines()[-1]
    assert result.stdout == f"{key}\n"
    assert Program(app, key).get("/members").status_code == 200
    row = session.scalars(select(ApiKey)).one()
    assert (row.name, row.scopes, row.expires_at) == (
        "the shop",
        ["members:read", "notice:read"],
        NOW + timedelta(days=30),
    )
    secret = key.split("_", 2)[2]
    assert secret not in str(contents(session))
    listed = app.test_cli_runner().invoke(args=["api-key", "list"]).stdout
    assert (row.prefix in listed, secret in listed, "works" in listed) == (True, False, True)


def test_a_key_without_a_scope_or_for_ever_is_not_made(app: Flask, session: Session) -> None:
    commands = app.test_cli_runner()
    for wrong in (
        ["x"],
        ["x", "--scope", "everything"],
        ["x", "--scope", "notice:read", "--days", "0"],
        ["", "--scope", "notice:read"],
    ):
        assert commands.invoke(args=["api-key", "create", *wrong]).exit_code != 0
    assert commands.invoke(args=["api-key", "revoke", "0123456789ab"]).exit_code == 1
    assert session.scalars(select(ApiKey)).all() == []


# Not too often


@pytest.mark.parametrize("limit", [1, 7, 60])
def test_a_key_is_used_as_often_as_it_may_be_on_all_processes_together(
    make_app: Callable[..., Flask], clock: FrozenClock, limit: int
) -> None:
    """Each application counts for itself, as processes do; the database is what they share."""
    apps = [make_app(api_rate=limit) for _ in range(3)]
    key = make_key(apps[0])
    programs = [Program(app, key) for app in apps]
    answers = [programs[n % 3].get("/members").status_code for n in range(3 * limit + 3)]
    granted = answers.count(200)
    # What a process was granted and does not use up is lost, one block at most.
    assert limit - 2 * (limit // 20) <= granted <= limit
    assert set(answers) == {200, 429}
    clock.tick(seconds=59)
    refused = programs[0].get("/members")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    clock.tick(seconds=1)
    assert programs[0].get("/members").status_code == 200


def test_another_key_has_a_limit_of_its_own(make_app: Callable[..., Flask]) -> None:
    app = make_app(api_rate=1)
    assert [Program(app).get("/members").status_code for _ in range(3)] == [200, 200, 200]


def test_without_a_limit_there_is_none(make_app: Callable[..., Flask]) -> None:
    program = Program(make_app(api_rate=0))
    assert {program.get("/members").status_code for _ in range(30)} == {200}
