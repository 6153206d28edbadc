"""A program with a key, for tests of the API."""

from datetime import datetime, timedelta
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from domain.scopes import Scope
from models import db, for_writing
from services import api_keys
from tests.conftest import NOW

BASE = "/api/v1"


def make_key(app: Flask, *scopes: Scope, expires_at: datetime = NOW + timedelta(days=365)) -> str:
    """A key with these scopes; without any, with all."""
    with app.app_context():
        for_writing(db.session())
        key = api_keys.create(
            db.session(), app.extensions["dormouse"].settings, "a test", scopes or Scope, expires_at, NOW
        )
        db.session.commit()
        return key


class Program:
    """Calls paths below /api/v1 with its key, and looks at no page."""

    def __init__(self, app: Flask, key: str | None = None) -> None:
        self.client = app.test_client()
        self.key = make_key(app) if key is None else key

    def call(self, method: str, path: str, headers: dict[str, str] | None = None, **sent: Any) -> TestResponse:
        response = self.client.open(
            BASE + path, method=method, headers={"Authorization": f"Bearer {self.key}", **(headers or {})}, **sent
        )
        if response.status_code >= 400:
            assert response.content_type == "application/problem+json"
            assert response.get_json()["status"] == response.status_code
        else:
            assert response.content_type in ("application/json", None)
        return response

    def get(self, path: str, **more: Any) -> TestResponse:
        return self.call("GET", path, **more)

    def put(self, path: str, value: Any) -> TestResponse:
        return self.call("PUT", path, json=value)

    def post(self, path: str, value: Any) -> TestResponse:
        return self.call("POST", path, json=value)
