"""The member's side against somebody who means harm. docs/security.md says which defence each test holds."""

import csv
import io
import logging
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session

from blueprints.headers import ALWAYS
from blueprints.masking import Masked
from models import ListItem, Member, Message, Profile, SavedList, db
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock, SmtpCatcher
from tests.web.browser import Browser, Page
from tests.web.everywhere import LATER, Cast, addresses, cast, contents

SIGNED = frozenset(
    {
        "hooks.mail",
        "hooks.billing",
        "api.put_members",
        "api.post_activity",
        "api.acknowledge_event",
        "api.acknowledge_order",
    }
)
"""Endpoints that take a POST without a token: their callers are machines, known by a signature or by a key."""


@pytest.fixture
def settings(app: Flask) -> Settings:
    found: Settings = app.extensions["dormouse"].settings
    return found


@pytest.fixture
def people(session: Session, settings: Settings, clock: FrozenClock) -> Cast:
    found = cast(session, settings)
    clock.travel(LATER)
    return found


@pytest.fixture
def signed_in(app: Flask, people: Cast) -> Browser:
    browser = Browser(app)
    browser.sign_in_as(people.asked)
    return browser


# Forged requests


def test_every_form_refuses_a_press_that_comes_from_another_site(
    app: Flask, session: Session, people: Cast, another_browser: Browser
) -> None:
    """Without a token, with one that is made up, and with one of the attacker's own session."""
    another_browser.open("/sign-in")
    theirs = another_browser.page.form.fields["csrf_token"]
    before = contents(session)
    tried = 0
    for endpoint, path in addresses(app, people, "POST"):
        if endpoint in SIGNED:
            # Word from a provider that is not asked to bill is for a page that does not exist.
            said = 404 if endpoint == "hooks.billing" else 401
            assert Browser(app).open(path, "POST", follow=False, data=b"{}").status_code == said
            continue
        for token in (None, "made-up", theirs):
            victim = Browser(app)
            victim.sign_in_as(people.asked)
            sent = {"answer": "lapse", "order": "restart", "email": "mia@example.org", "who": "Mia", "member": "x"}
            response = victim.open(
                path, "POST", follow=False, data=sent if token is None else {**sent, "csrf_token": token}
            )
            # The form's page once more; or what that page says where it has no form for this member now. Whom the
            # service hands over is known by what it has signed, and by the page that posts it.
            refused = (403,) if endpoint.startswith("auth.") and "service" in endpoint else (400, 302, 410)
            assert response.status_code in refused, (endpoint, token)
            tried += 1
    assert contents(session) == before
    assert tried >= 3 * 10


@pytest.mark.parametrize(
    "said", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}]
)
def test_a_form_that_another_site_posts_leaves_the_session_of_the_browser_alone(
    app: Flask, people: Cast, said: dict[str, str]
) -> None:
    """No cookie comes with it. A new one would take the place of the real one, and sign the member out."""
    tried = [path for _endpoint, path in addresses(app, people, "POST")]
    for path in [*tried, "/there-is-no-such-page"]:
        answer = app.test_client().post(path, data={"lang": "de", "email": "mia@example.org"}, headers=said)
        assert "Set-Cookie" not in answer.headers, path
    assert len(tried) >= 10


def test_a_press_on_a_page_of_ours_begins_a_session_where_the_cookie_was_lost(app: Flask, people: Cast) -> None:
    site = app.extensions["dormouse"].settings.public_url
    for said in ({"Sec-Fetch-Site": "same-origin", "Origin": site}, {"Origin": site}, {}):
        assert "Set-Cookie" in app.test_client().post("/sign-in", headers=said).headers


def test_looking_at_anything_changes_nothing(app: Flask, session: Session, people: Cast) -> None:
    """Promise 3, for every address there is: scanners GET, HEAD and OPTIONS, with or without a session."""
    before = contents(session)
    for method in ("GET", "HEAD", "OPTIONS"):
        for signed_in in (False, True):
            browser = Browser(app)
            if signed_in:
                browser.sign_in_as(people.asked)
            for endpoint, path in addresses(app, people, "GET"):
                response = browser.open(path, method, follow=False)
                assert response.status_code < 500, (method, endpoint)
                response.close()
    assert contents(session) == before


# Sessions


def test_a_session_that_was_foisted_on_a_member_is_worth_nothing_after_signing_in(
    app: Flask, people: Cast, browser: Browser, another_browser: Browser
) -> None:
    """Fixation: the attacker's cookie, planted in the victim's browser, does not become the victim's session."""
    browser.open("/sign-in")
    planted = browser.client.get_cookie("dormouse")
    assert planted is not None
    attackers_form = browser.page.form.fields["csrf_token"]

    another_browser.client.set_cookie("dormouse", planted.value)
    another_browser.open(f"/sign-in/{people.tokens['/sign-in/']}")
    another_browser.press()
    assert another_browser.url.endswith("/account")
    after = another_browser.client.get_cookie("dormouse")
    assert after is not None
    assert after.value != planted.value

    browser.open("/account")
    assert browser.url.endswith("/sign-in")
    # Nor is the form token the attacker knows any good in the victim's session.
    sent = {"csrf_token": attackers_form, "answer": "lapse"}
    response = another_browser.open("/check-in", "POST", follow=False, data=sent)
    assert response.status_code == 400


def test_a_cookie_from_before_signing_out_everywhere_is_dead(signed_in: Browser, app: Flask, people: Cast) -> None:
    stolen = signed_in.client.get_cookie("dormouse")
    assert stolen is not None
    signed_in.open("/account")
    form = next(form for form in signed_in.page.forms if form.action.endswith("/sign-out/everywhere"))
    signed_in.press(form=form)
    thief = Browser(app)
    thief.client.set_cookie("dormouse", stolen.value)
    thief.open("/account")
    assert thief.url.endswith("/sign-in")


def test_a_session_of_another_installation_is_nobodys(make_app: Callable[..., Flask], people: Cast, app: Flask) -> None:
    elsewhere = Browser(make_app(secret_key="another installation's key, as long as ours"))
    elsewhere.sign_in_as(people.asked)
    cookie = elsewhere.client.get_cookie("dormouse")
    assert cookie is not None
    here = Browser(app)
    here.client.set_cookie("dormouse", cookie.value)
    here.open("/account")
    assert here.url.endswith("/sign-in")


# Tokens


def test_a_token_opens_what_it_was_made_for_and_nothing_else(app: Flask, session: Session, people: Cast) -> None:
    """Each kind of token on each kind of page: neither shown nor acted on."""
    before = contents(session)
    for begin in people.tokens:
        for made_for, token in people.tokens.items():
            if made_for == begin:
                continue
            browser = Browser(app)
            browser.open(f"{begin}{token}")
            assert "mia" not in browser.page.text.casefold()
            assert "K-100" not in browser.page.text
            for form in browser.page.forms:
                if form.inside_main and form.action in ("", browser.url):
                    button = form.buttons[0] if form.buttons else ("", "")
                    browser.press(*button, form=form)
    after = contents(session)
    assert after["member"] == before["member"]
    assert after["member_case"] == before["member_case"]
    assert after["magic_link"] == before["magic_link"]


def test_a_token_that_was_used_is_not_good_a_second_time(app: Flask, session: Session, people: Cast) -> None:
    for begin in ("/sign-in/", "/account/erase/"):
        thief = Browser(app)
        owner = Browser(app)
        for browser in (owner, thief):
            browser.open(f"{begin}{people.tokens[begin]}")
        owner.press()
        before = contents(session)
        thief.press()
        assert thief.response.status_code == 410
        thief.open("/account")
        assert thief.url.endswith("/sign-in")
        assert contents(session) == before


# Who is a member


@contextmanager
def statements(app: Flask) -> Iterator[list[str]]:
    """What the database is asked, in order, without the values."""
    asked: list[str] = []

    def note(_c: object, _u: object, statement: str, *_: object) -> None:
        asked.append(" ".join(statement.split()))

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("page", ["/sign-in", "/end-membership"])
def test_nobody_learns_who_is_a_member(app: Flask, session: Session, people: Cast, page: str) -> None:
    """Neither by what comes back nor by how much is done for it."""
    seen = []
    for email in ("mia@example.org", "eva@example.org"):
        browser = Browser(app)
        browser.open(page)
        filled = {"email": email} | ({"who": "K-1001"} if "who" in browser.page.form.fields else {})
        with statements(app) as asked:
            browser.press(follow=False, **filled)
        response = browser.response
        text = re.sub(r"[A-Za-z0-9_.-]{60,}", "", response.text.replace(email, ""))
        headers = sorted(name for name, _ in response.headers)
        seen.append((response.status_code, text, headers, response.headers.get("Location"), asked))
    (*said, member), (*said_to_a_stranger, stranger) = seen
    assert said == said_to_a_stranger
    # What is done for a stranger is done on a savepoint, and taken back.
    assert abs(len(member) - len(stranger)) <= (0 if page == "/sign-in" else 3)
    written = [sum(line.startswith(("INSERT", "UPDATE")) for line in asked) for asked in (member, stranger)]
    assert abs(written[0] - written[1]) <= (0 if page == "/sign-in" else 3)
    assert written[0] >= 2


def test_guessing_and_flooding_are_limited_whatever_a_visitor_says_of_himself(
    app: Flask, session: Session, people: Cast, clock: FrozenClock
) -> None:
    """No proxy is trusted here, so a made-up X-Forwarded-For does not make thirty-one visitors of one."""
    browser = Browser(app)
    answers = []
    for number in range(31):
        clock.tick(seconds=1)
        browser.open("/sign-in")
        form = browser.page.form
        answers.append(
            browser.client.post(
                "/sign-in",
                data={**form.fields, "email": f"guess{number}@example.org"},
                headers={"X-Forwarded-For": f"192.0.2.{number}", "X-Real-IP": f"192.0.2.{number}"},
            ).status_code
        )
    assert answers == [200] * 30 + [429]
    session.rollback()
    assert session.scalar(select(func.count()).select_from(Message).where(Message.kind == "sign_in")) == 0


# Links elsewhere, and headers by names


def test_a_made_up_host_reaches_no_mail(app: Flask, session: Session, people: Cast, smtp: SmtpCatcher) -> None:
    client = app.test_client()
    for header in ("Host", "X-Forwarded-Host", "Forwarded", "X-Original-URL", "X-Rewrite-URL"):
        made_up = {header: "host=evil.example" if header == "Forwarded" else "evil.example"}
        page = Page(client.get("/sign-in", headers=made_up).text)
        client.post("/sign-in", data={**page.form.fields, "email": "mia@example.org"}, headers=made_up)
    app.extensions["dormouse_jobs"].run("deliver", LATER)
    assert len([mail for mail in smtp.mails if b"/sign-in/" in mail.raw]) == 5
    for mail in smtp.mails:
        assert b"evil.example" not in mail.raw


HEADERS = ("Mia\r\nBcc: everybody@example.org", "Mia\nSubject: You have won", "Mia\r\n\r\n<h1>Body</h1>", "M\x00ia\x0b")


@pytest.mark.parametrize("name", HEADERS)
def test_a_name_never_becomes_a_header_of_a_mail(
    app: Flask, session: Session, people: Cast, smtp: SmtpCatcher, name: str
) -> None:
    """No import lets such a name in; here it is in the table already, and the service calls itself as badly."""
    if session.get_bind().dialect.name == "postgresql":
        name = name.replace("\x00", "")
    session.execute(update(Member).values(name=name, plan=name))
    session.commit()
    browser = Browser(app, strict=False)
    browser.open("/sign-in")
    browser.press(email="mia@example.org")
    browser.open(f"/check-in/{people.tokens['/check-in/']}")
    browser.press("answer", "lapse")
    app.extensions["dormouse_jobs"].run("deliver", LATER)
    assert len(smtp.mails) >= 2
    for mail in smtp.mails:
        assert mail.recipients == ["mia@example.org"]
        message = mail.message
        assert message["Bcc"] is None
        assert len(message.get_all("Subject") or []) == 1
        assert "You have won" not in (message["Subject"] or "").splitlines()[1:]
        assert not message.defects


# What members are called


PAYLOAD = """"'><x-evil onmouseover=alert(1)></title></textarea><script>alert(1)</script>{{7*7}}${7*7}"""


def evil_elements(html: str) -> list[str]:
    page = Page(html)
    found = [tag for tag, _ in page.elements if tag in ("x-evil", "script")]
    return found + [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_what_an_import_brings_is_text_on_every_page_and_in_every_mail(
    app: Flask, session: Session, settings: Settings, clock: FrozenClock, smtp: SmtpCatcher
) -> None:
    """Markup in every column that holds text, in the library, and in what visitors type themselves."""
    free_text = {"name": PAYLOAD[:200], "plan": PAYLOAD[:100], "billing_ref": PAYLOAD}
    people = cast(session, settings, **free_text)
    session.execute(update(Profile).values(name=PAYLOAD, settings={PAYLOAD: PAYLOAD}))
    session.execute(update(SavedList).values(name=PAYLOAD, kind=PAYLOAD[:50]))
    session.execute(update(ListItem).values(title=PAYLOAD, ref=PAYLOAD))
    session.execute(update(Member).where(Member.id == people.asked.id).values(external_id=PAYLOAD))
    session.execute(update(Member).where(Member.id == people.lapsed.id).values(external_id=PAYLOAD + "2"))
    session.commit()
    session.refresh(people.asked)
    clock.travel(LATER)
    shown = 0
    for member in (None, people.asked, people.lapsed):
        browser = Browser(app)
        if member is not None:
            session.refresh(member)
            browser.sign_in_as(member)
        for endpoint, path in addresses(app, people, "GET"):
            if endpoint == "static":
                continue
            for query in ("", f"?next=/%22%3E%3Cx-evil%3E&lang=%22%3E%3Cx-evil%3E&{'x' * 3}=%3Cx-evil%3E"):
                response = browser.open(path + query, follow=False)
                if response.mimetype == "text/html":
                    assert not evil_elements(response.text), endpoint
                    assert "49" not in re.findall(r"\{\{.*?\}\}|\$\{.*?\}|x-evil.{0,200}?(49)", response.text)
                    shown += "x-evil" in response.text
                elif response.mimetype == "application/zip":
                    archive = zipfile.ZipFile(io.BytesIO(response.data))
                    assert not evil_elements(archive.read("membership.html").decode())
                    shown += 1
                response.close()
    assert shown >= 4

    browser = Browser(app)
    browser.open(f"/check-in/{people.tokens['/check-in/']}")
    browser.press("answer", "lapse")
    assert not evil_elements(browser.response.text)
    for page in ("/sign-in", "/end-membership"):
        browser.open(page)
        for email in (PAYLOAD, '"<x-evil>"@example.org', "mia@example.org"):
            browser.open(page)
            fields = browser.page.form.fields
            browser.press(
                **{name: email if name == "email" else PAYLOAD for name in fields if name in ("email", "who")}
            )
            assert not evil_elements(browser.response.text)
    app.extensions["dormouse_jobs"].run("deliver", LATER)
    assert smtp.mails
    for mail in smtp.mails:
        html = mail.message.get_body(("html",))
        assert html is not None
        assert not evil_elements(html.get_content())


@pytest.mark.parametrize("cell", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1"])
def test_no_spreadsheet_runs_what_a_member_is_called(app: Flask, session: Session, tmp_path: Path, cell: str) -> None:
    factories.live_feed(session, NOW)
    factories.dormant(session, external_id=cell)
    session.commit()
    file = tmp_path / "preview.csv"
    runner = app.test_cli_runner()
    result = runner.invoke(args=["campaign", "preview", "--csv", str(file)])
    assert result.exit_code == 0, result.output
    with file.open(encoding="utf-8", newline="") as lines:
        [_, row] = csv.reader(lines)
    assert row[0] == "'" + cell.replace("\r", "\n")


# What browsers are told


def answers(app: Flask, people: Cast, browser: Browser) -> Iterator[tuple[str, object]]:
    """An answer of every address and of every kind: pages, presses, refusals, mistakes."""
    for method in ("GET", "POST", "DELETE"):
        for endpoint, path in addresses(app, people, "GET" if method != "POST" else "POST"):
            yield f"{method} {endpoint}", browser.open(path, method, follow=False)
    yield "404", browser.open("/nowhere")
    yield "413", browser.open("/sign-in", "POST", data={"email": "x" * 2_000_000})
    browser.open("/sign-in")


def test_every_answer_forbids_framing_sniffing_and_code_and_personal_ones_are_kept_by_nobody(
    app: Flask, people: Cast, signed_in: Browser
) -> None:
    seen = 0
    for browser in (Browser(app), signed_in):
        for what, response in answers(app, people, browser):
            headers = response.headers  # type: ignore[attr-defined]
            for name, value in ALWAYS.items():
                assert headers.get(name) == value, (what, name)
            assert "unsafe" not in headers["Content-Security-Policy"]
            for_everybody = "static" in what or "api.document" in what
            if not for_everybody and ("programme.show" not in what or browser is signed_in):
                assert headers.get("Cache-Control") == "no-store", what
            # Who comes back by a search finds the page that asks for the mailbox.
            found_by_searching = what == "GET comeback.mine" and browser is not signed_in
            if found_by_searching:
                assert headers.get("X-Robots-Tag") == "all"
            elif not ("static" in what or "programme.show" in what):
                assert headers.get("X-Robots-Tag") == "noindex", what
            response.close()  # type: ignore[attr-defined]
            seen += 1
    assert seen > 80


def test_the_public_page_with_a_members_notice_is_kept_by_nobody(signed_in: Browser, browser: Browser) -> None:
    assert signed_in.open("/programme").headers["Cache-Control"] == "no-store"
    assert "membership-notice" in signed_in.response.text
    assert "Cache-Control" not in browser.open("/programme").headers


def test_cookies_go_over_tls_only_to_this_site_and_to_no_script(make_app: Callable[..., Flask]) -> None:
    """Also where the proxy in front speaks http to us, which is the usual way."""
    client = make_app(public_url="https://members.example.org/club", trusted_proxies=1).test_client()
    response = client.get("/sign-in", headers={"X-Forwarded-Proto": "http", "Host": "127.0.0.1:8000"})
    [cookie] = response.headers.getlist("Set-Cookie")
    flags = {part.strip() for part in cookie.split(";")[1:]}
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/club"} <= flags
    assert not [flag for flag in flags if flag.startswith("Domain")]
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"


@pytest.mark.parametrize(
    "sent",
    [
        {"data": {"email": "x" * 2_000_000}},
        {"data": {f"field{number}": "x" for number in range(3000)}, "content_type": "multipart/form-data"},
        {"data": b"x" * 2_000_000, "content_type": "application/octet-stream"},
        {"data": b"--x\r\n" + b"A" * 100_000, "content_type": "multipart/form-data; boundary=x"},
        {"data": b"\xff\xfe\x00=%", "content_type": "application/x-www-form-urlencoded"},
    ],
)
def test_a_request_that_is_too_much_or_broken_is_refused_with_a_page(
    browser: Browser, session: Session, sent: dict[str, object]
) -> None:
    browser.open("/sign-in")
    before = contents(session)
    response = browser.open("/sign-in", "POST", follow=False, **sent)
    assert response.status_code in (400, 413)
    assert "<h1" in response.text
    assert contents(session) == before


# Logs of servers


def test_what_a_server_writes_of_a_request_has_its_token_masked() -> None:
    masked = Masked()
    masked.know({"/check-in/", "/account/erase/"})

    def written(message: str, *values: object) -> str:
        record = logging.LogRecord("gunicorn.access", logging.INFO, "", 0, message, values, None)
        assert masked.filter(record)
        return record.getMessage()

    assert written('"GET /club/check-in/abc.def HTTP/1.1" 200') == '"GET /club/check-in/… HTTP/1.1" 200'
    assert (
        written('%s "%s"', "a", "POST /account/erase/abc?lang=de HTTP/1.1")
        == 'a "POST /account/erase/…?lang=de HTTP/1.1"'
    )
    assert written("/check-in/abc/not-mine x") == "/check-in/… x"
    assert written('"https://m.example/check-in/abc"') == '"https://m.example/check-in/…"'
    assert written("/sign-in?next=%2Fcheck-in%2Fabc&x=1") == "/sign-in?next=%2Fcheck-in%2F…&x=1"
    for untouched in ("GET /check-in HTTP/1.1", "GET /account/erase HTTP/1.1", "100 % of /static/x.css"):
        assert written(untouched) == untouched
