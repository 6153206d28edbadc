"""The document that the API is described by, and whether the API does what it says, whatever is sent (schemathesis)."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import schemathesis
from flask import Flask
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events
from werkzeug.serving import make_server

from blueprints.api.operations import PUBLISHED
from models import db
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import opened
from tests.web.api import BASE, make_key
from tests.web.browser import Page, well_formed

LONG = os.environ.get("DORMOUSE_FAULTS") == "long"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What is sent never gets to a database unchecked, and tests/web/test_api.py asks both: one is enough."""
    return sqlite_url


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    found: dict[str, Any] = app.test_client().get(f"{BASE}/openapi.json").get_json()
    return found


# Whatever is sent


PHASES = ("examples", "coverage", "fuzzing", "stateful")


@pytest.mark.parametrize("phase", PHASES)
def test_whatever_is_sent_gets_what_the_document_says(make_app: Callable[..., Flask], phase: str) -> None:
    """All of schemathesis' checks, on data that fits the document, data that does not, and everything at its bounds.

    Somebody is asked, somebody has lapsed, somebody uses it.
    """
    app = make_app(api_rate=0)
    with app.app_context():
        session = db.session()
        factories.library(session, factories.dormant(session, external_id="10042"))
        ended = {"status": "lapsed", "lapsed_at": NOW, "access_ends_at": NOW, "keep_until": at("2027-05-01")}
        factories.member(session, external_id="0", **ended)
        factories.using(session, external_id="1")
        session.commit()
        opened(session, app.extensions["dormouse"].settings, NOW)
        session.commit()
        db.session.remove()
    with served(app) as url:
        tried, failures = _tried(url, make_key(app), phase)
    assert failures == []
    assert tried >= 5


def _tried(url: str, key: str, phase: str) -> tuple[int, list[Any]]:
    """How many requests were made, and what was wrong with their answers."""
    config = SchemathesisConfig.from_dict(
        {
            "base-url": f"{url}{BASE}",
            "seed": 1,
            "headers": {"Authorization": f"Bearer {key}"},
            "generation": {"max-examples": 200 if LONG else 5, "deterministic": True, "database": "none"},
            "phases": {one: {"enabled": one == phase} for one in PHASES},
        }
    )
    schema = schemathesis.openapi.from_url(f"{url}{BASE}/openapi.json", config=config)
    tried, failures = 0, []
    for event in schemathesis.engine.from_schema(schema).execute():
        assert not isinstance(event, events.FatalError | events.NonFatalError), event
        if isinstance(event, events.ScenarioFinished):
            tried += len(event.recorder.cases)
            checks = [check for found in event.recorder.checks.values() for check in found]
            failures += [check.failure_info.failure for check in checks if check.failure_info is not None]
    return tried, failures


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """The address of a real server: schemathesis looks at what comes over the wire."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


# The document itself


def test_every_operation_is_described_and_nothing_else_is(app: Flask, document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    described = {
        (method.upper(), path, found["x-scope"])
        for path, methods in document["paths"].items()
        for method, found in methods.items()
    }
    assert len(described) == len(PUBLISHED)
    served = {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("api.") and rule.endpoint not in ("api.document", "api.show")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert served == {(one.method, BASE + one.path) for one in PUBLISHED}
    for methods in document["paths"].values():
        for found in methods.values():
            assert found["summary"]
            assert found["description"]
            assert {"401", "403", "429"} <= set(found["responses"])


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    def references(value: Any) -> Any:
        if isinstance(value, dict):
            yield from [value["$ref"]] if "$ref" in value else []
            for one in value.values():
                yield from references(one)
        elif isinstance(value, list):
            for one in value:
                yield from references(one)

    found = set(references(document))
    assert found
    assert {reference.rpartition("/")[2] for reference in found} <= set(schemas)


def test_the_page_says_the_same_and_loads_nothing_from_elsewhere(app: Flask, document: dict[str, Any]) -> None:
    answer = app.test_client().get(BASE)
    assert answer.mimetype == "text/html"
    well_formed(answer.text)
    page = Page(answer.text)
    page.stays_here()
    assert page.language == "en"
    for path, methods in document["paths"].items():
        for method, found in methods.items():
            assert f"{method.upper()} {path}" in page.text
            assert found["operationId"] in page.ids
    for name in document["components"]["schemas"]:
        assert name in page.ids
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "`" not in page.text
