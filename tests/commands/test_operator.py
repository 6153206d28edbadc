"""Operators: made with a password from standard input, listed, and never twice."""

from click.testing import Result
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.security import check_password_hash

from models import Operator

PASSWORD = "a long password\n"


def create(app: Flask, email: str, role: str = "manager", password: str = PASSWORD) -> Result:
    return app.test_cli_runner().invoke(args=["operator", "create", email, "--role", role], input=password)


def test_an_operator_is_created_with_a_hashed_password(app: Flask, session: Session) -> None:
    result = create(app, "Ann@Lumio.example", "admin")
    assert (result.exit_code, result.stdout) == (0, "created Ann@Lumio.example as admin\n")
    row = session.scalars(select(Operator)).one()
    assert (row.email, row.email_key, row.role) == ("Ann@Lumio.example", "ann@lumio.example", "admin")
    assert row.password_hash.startswith("scrypt:")
    assert check_password_hash(row.password_hash, "a long password")
    assert "Ann@Lumio.example  admin" in app.test_cli_runner().invoke(args=["operator", "list"]).stdout


def test_the_same_address_is_refused_however_it_is_written(app: Flask) -> None:
    create(app, "ann@lumio.example")
    result = create(app, "ANN@lumio.example")
    assert (result.exit_code, result.stderr) == (1, "Error: there is an operator ANN@lumio.example already\n")


def test_bad_input_creates_nobody(app: Flask, session: Session) -> None:
    assert "no e-mail address" in create(app, "ann").stderr
    assert "at least 12 characters" in create(app, "ann@lumio.example", password="short\n").stderr
    assert "'chief' is not one of" in create(app, "ann@lumio.example", "chief").stderr
    assert session.scalars(select(Operator)).all() == []
