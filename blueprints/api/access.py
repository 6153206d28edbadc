"""Who may call what: the key of a request, its scopes, and how often it may be used."""

from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from flask import Response, current_app, g, request
from sqlalchemy import Select

from blueprints.problems import problem
from domain.scopes import Scope
from models import db, for_writing, glancing
from services import api_keys
from services.installation import installed

EXTENSION = "dormouse_api_allowance"
REALM = 'Bearer realm="dormouse"'
BLOCKS = 20
"""Requests are counted in the database in blocks of this part of the limit, so that few of them have to write."""


def refusal(scope: Scope, look: Select[Any], values: dict[str, str]) -> Response | None:
    """Why this request may not do what the scope is for; None where it may. Leaves no transaction open."""
    here = installed()
    now = here.clock.now()
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    if kind.casefold() != "bearer":
        return problem(401, headers={"WWW-Authenticate": REALM})
    asked = values if look is not api_keys.FOUND else {}
    with glancing(db.engine).connect() as connection:
        known = api_keys.verify(connection, here.settings, given.strip(), now, look, **asked)
    if not isinstance(known, api_keys.Known):
        reason = known.reason if known else "This key was not made here."
        return problem(401, reason, {"WWW-Authenticate": f'{REALM}, error="invalid_token"'})
    if scope not in known.scopes:
        challenge = f'{REALM}, error="insufficient_scope", scope="{scope}"'
        return problem(403, f"This key lacks the scope {scope}.", {"WWW-Authenticate": challenge})
    limit = here.settings.api_rate
    if not _allowance().spend(known.id, limit, now):
        wait = api_keys.window(now) + api_keys.WINDOW - now
        said = f"This key may be used {limit:,} times a minute (API_RATE); go on when the next minute begins."
        return problem(429, said, {"Retry-After": str(max(1, -(-wait // timedelta(seconds=1))))})
    g.looked = known.row
    return None


class Allowance:
    """What this process may still spend of what the database has granted it, key by key.

    A block that is not used up before its minute ends is lost: on many processes a key may get a little less than its
    limit, and never more.
    """

    def __init__(self) -> None:
        self._left: dict[int, tuple[datetime, int]] = {}
        self._lock = Lock()

    def spend(self, key_id: int, limit: int, now: datetime) -> bool:
        this = api_keys.window(now)
        if self._take(key_id, this, limit):
            return True
        session = db.session()
        for block in dict.fromkeys((max(limit // BLOCKS, min(limit, 1)), min(limit, 1))):
            for_writing(session)
            granted = api_keys.grant(session, key_id, block, limit, now)
            session.commit()
            if granted:
                with self._lock:
                    window, left = self._left.get(key_id, (this, 0))
                    self._left[key_id] = (this, block - 1 + (left if window == this else 0))
                return True
        return False

    def _take(self, key_id: int, this: datetime, limit: int) -> bool:
        with self._lock:
            window, left = self._left.get(key_id, (None, 0))
            if window != this or (left <= 0 and limit):
                return False
            self._left[key_id] = (this, left - 1)
            return True


def _allowance() -> Allowance:
    found: Allowance = current_app.extensions[EXTENSION]
    return found
