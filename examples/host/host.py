"""A small streaming service with Dormouse beside it: the whole of an integration in one file.

It has its own members, plays and favourites in its own database, and knows Dormouse only by HTTP: as a stranger would.
README.md says how to start the two. Read from the top: pages, then events in, then members and plays out.
"""

import base64
import hmac
import json
import os
import sqlite3
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import jwt
from flask import Flask, Response, abort, g, redirect, render_template_string, request, session, url_for

DORMOUSE = os.environ.get("DORMOUSE_URL", "http://localhost:5000")
API_KEY = os.environ.get("DORMOUSE_API_KEY", "")
EVENTS_SECRET = os.environ.get("DORMOUSE_EVENTS_SECRET", "")
SIGNING_KEY = Path(os.environ.get("HOST_SIGNING_KEY", "host-key.pem"))
ISSUER = os.environ.get("HOST_ISSUER", "lumio")
DATABASE = os.environ.get("HOST_DATABASE", "host.db")
CLOCK = os.environ.get("HOST_CLOCK")

TITLES = {"t-1": "The Long Winter", "t-2": "Acorns", "t-3": "A Nest of One's Own"}

SCHEMA = """
CREATE TABLE member (id TEXT PRIMARY KEY, email TEXT, name TEXT, joined_at TEXT, status TEXT DEFAULT 'active',
    saved_until TEXT);
CREATE TABLE favourite (member_id TEXT, title_id TEXT, added_at TEXT, PRIMARY KEY (member_id, title_id));
CREATE TABLE play (id INTEGER PRIMARY KEY, member_id TEXT, title_id TEXT, at TEXT, told INTEGER DEFAULT 0);
CREATE TABLE heard (id TEXT PRIMARY KEY);
"""

PAGE = """<!doctype html>
<html lang="en">
<title>Lumio</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="{{ url_for('style') }}">
<script src="{{ dormouse }}/static/notice.js" defer></script>
<header><h1>Lumio</h1></header>
<main>
{% if not member %}
  <p>Who are you?</p>
  <form method="post" action="{{ url_for('sign_in') }}">
    {% for one in members %}<button name="member" value="{{ one['id'] }}">{{ one['name'] }}</button> {% endfor %}
  </form>
{% else %}
  {% if member['status'] == 'active' %}
  <dormouse-notice token="{{ notice_token }}"><a href="{{ url_for('membership') }}">Your membership</a></dormouse-notice>
  {% elif member['status'] == 'ended' %}
  <section aria-labelledby="ended">
    <h2 id="ended">Your membership has ended</h2>
    <p>Your lists are saved until {{ member['saved_until'] }}.</p>
    <p><a href="{{ url_for('membership', to='come-back') }}">Come back</a></p>
  </section>
  {% endif %}
  <h2>Hello, {{ member['name'] }}</h2>
  {% if member['status'] == 'active' %}
  <form method="post" action="{{ url_for('watch') }}">
    {% for id, title in titles.items() %}
    <p>{{ title }}
      <button name="play" value="{{ id }}" aria-label="Play {{ title }}">Play</button>
      <button name="like" value="{{ id }}" aria-label="Add {{ title }} to your favourites">Add</button></p>
    {% endfor %}
  </form>
  {% endif %}
  <h2>Your favourites</h2>
  <ul id="favourites">{% for id in favourites %}<li>{{ titles[id] }}</li>{% else %}<li>None yet</li>{% endfor %}</ul>
  <p><a href="{{ url_for('membership') }}">About your membership</a></p>
  <form method="post" action="{{ url_for('sign_out') }}"><button>Sign out</button></form>
{% endif %}
</main>
</html>
"""

STYLE = """
body { font-family: sans-serif; max-width: 45rem; margin: 0 auto; padding: 1rem; background: #fff; color: #1b1b1b }
dormouse-notice { --dormouse-background: #eaf2ff; --dormouse-border: #24508f; --dormouse-action: #24508f }
button { font: inherit; padding: .4rem .8rem }
@media (prefers-color-scheme: dark) {
  body { background: #14171c; color: #f0f0f0 }
  a { color: #9cc4ff }
  dormouse-notice { --dormouse-background: #1d2a3d; --dormouse-color: #f0f0f0; --dormouse-border: #9cc4ff;
    --dormouse-action: #9cc4ff; --dormouse-action-color: #14171c }
}
"""

app = Flask(__name__)
app.secret_key = os.environ.get("HOST_SECRET_KEY") or os.urandom(32)
app.config.update(SESSION_COOKIE_NAME="lumio", SESSION_COOKIE_SAMESITE="Lax")


# Pages


@app.get("/")
def home() -> str:
    member = signed_in()
    return render_template_string(
        PAGE,
        member=member,
        members=rows("SELECT * FROM member ORDER BY name"),
        favourites=[
            row["title_id"] for row in rows("SELECT * FROM favourite WHERE member_id = ? ORDER BY added_at", me())
        ],
        titles=TITLES,
        dormouse=DORMOUSE,
        notice_token=assertion(me(), "/api/notice", minutes=15) if member else "",
    )


@app.get("/style.css")
def style() -> Response:
    return Response(STYLE, mimetype="text/css")


@app.post("/sign-in")
def sign_in() -> Response:
    # A real service asks for a password here.
    session["member"] = request.form["member"]
    return to_home()


@app.post("/sign-out")
def sign_out() -> Response:
    session.clear()
    return to_home()


@app.post("/watch")
def watch() -> Response:
    member = signed_in()
    if member is None or member["status"] != "active":
        abort(403)
    with database():
        if title := request.form.get("play"):
            change("INSERT INTO play (member_id, title_id, at) VALUES (?, ?, ?)", me(), title, now().isoformat())
        if title := request.form.get("like"):
            change("INSERT OR IGNORE INTO favourite VALUES (?, ?, ?)", me(), title, now().isoformat())
    # What cannot be told now is told by the nightly `push`.
    try:
        tell_plays()
        tell_library(me())
    except (HTTPError, URLError) as error:
        app.logger.warning("Dormouse was not told: %s", error)
    return to_home()


@app.get("/membership")
def membership() -> Response:
    """On to Dormouse, signed in: `to` is one of its pages (account, check-in, come-back, data)."""
    if signed_in() is None:
        return to_home()
    token = assertion(me(), "/sign-in/service", seconds=60)
    to = request.args.get("to", "account")
    return redirect(f"{DORMOUSE}/sign-in/service/{token}?to={quote(to)}", 303)


@app.after_request
def protect(response: Response) -> Response:
    """A strict policy. Of Dormouse it needs two things: to load its script, and to let that fetch the notice."""
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src {DORMOUSE}/static/notice.js; connect-src {DORMOUSE}/api/notice;"
        " style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def assertion(member_id: str, purpose: str, **good_for: int) -> str:
    """What Dormouse believes: this member, for this purpose, now. Made anew each time; the key never leaves here."""
    claims = {
        "iss": ISSUER,
        "aud": DORMOUSE + purpose,
        "sub": member_id,
        "iat": now(),
        "exp": now() + timedelta(**good_for),
        "jti": uuid.uuid4().hex,
    }
    return jwt.encode(claims, SIGNING_KEY.read_bytes(), "EdDSA")


# Events in


@app.post("/hooks/membership")
def hear() -> tuple[dict[str, object], int]:
    """What Dormouse tells, signed as Standard Webhooks says. May come twice: `webhook-id` is then the same."""
    body, given = request.get_data(), request.headers
    event_id, stamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    key = base64.b64decode(EVENTS_SECRET.removeprefix("whsec_"))
    made = "v1," + base64.b64encode(hmac.digest(key, f"{event_id}.{stamp}.".encode() + body, "sha256")).decode()
    fresh = stamp.isdigit() and abs(now().timestamp() - int(stamp)) < 300
    if not fresh or not any(hmac.compare_digest(made, one) for one in given.get("webhook-signature", "").split()):
        abort(401)
    event = json.loads(body)
    with database():
        if change("INSERT OR IGNORE INTO heard VALUES (?)", event_id):
            follow(event["type"], event["data"])
    # Whatever it was, our copy has followed by now: a failure above is answered 500, and the event comes again.
    return {"acknowledged": True}, 200


def follow(kind: str, data: dict[str, str]) -> None:
    member_id = data.get("external_id", "")
    if kind == "member.lapsed":
        # Dormouse has the lists now, and gives them back with a return.
        last_day = datetime.fromisoformat(data["saved_until"])
        change("UPDATE member SET status = 'ended', saved_until = ? WHERE id = ?", f"{last_day:%-d %B %Y}", member_id)
        change("DELETE FROM favourite WHERE member_id = ?", member_id)
    elif kind == "member.returned":
        change("UPDATE member SET status = 'active', saved_until = NULL WHERE id = ?", member_id)
        for profile in ask("GET", f"/members/{quote(member_id, safe='')}/library")["profiles"]:
            for saved in profile["lists"]:
                for item in saved["items"]:
                    change("INSERT OR IGNORE INTO favourite VALUES (?, ?, ?)", member_id, item["ref"], item["added_at"])
    elif kind == "member.erasing":
        change("UPDATE member SET status = 'erased' WHERE id = ?", member_id)
    elif kind == "member.purged":
        for table, column in (("member", "id"), ("favourite", "member_id"), ("play", "member_id")):
            change(f"DELETE FROM {table} WHERE {column} = ?", member_id)


# Members and plays out


@app.cli.command("push")
def push() -> None:
    """Every night: all members, what was played, and how far that is complete."""
    with database():
        members = [
            {
                "external_id": row["id"],
                "email": row["email"],
                "name": row["name"],
                "locale": "en",
                "joined_at": row["joined_at"],
                "plan": "Standard",
                "price": "12.99",
                "currency": "EUR",
                "billing_interval": "month",
            }
            for row in rows("SELECT * FROM member WHERE status = 'active'")
        ]
        print(ask("POST", "/members/batch", {"members": members}))
        for member in members:
            tell_library(member["external_id"])
        tell_plays(through=now())


def tell_plays(through: datetime | None = None) -> None:
    plays = rows("SELECT * FROM play WHERE told = 0 ORDER BY id LIMIT 10000")
    uses = [{"external_id": row["member_id"], "used_at": row["at"]} for row in plays]
    if uses or through:
        ask(
            "POST",
            "/activity",
            {"source": "plays", "uses": uses, **({"through": through.isoformat()} if through else {})},
        )
        with database():
            change("UPDATE play SET told = 1 WHERE id <= ?", plays[-1]["id"] if plays else 0)


def tell_library(member_id: str) -> None:
    items = [
        {"ref": row["title_id"], "title": TITLES[row["title_id"]], "added_at": row["added_at"]}
        for row in rows("SELECT * FROM favourite WHERE member_id = ? ORDER BY added_at", member_id)
    ]
    lists = [{"kind": "favourites", "name": "Favourites", "items": items}]
    profiles = [{"name": "Main", "settings": {}, "lists": lists}]
    ask("PUT", f"/members/{quote(member_id, safe='')}/library", {"profiles": profiles})


def ask(method: str, path: str, body: object = None) -> dict[str, list[dict[str, object]]]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
    with urlopen(Request(f"{DORMOUSE}/api/v1{path}", data, headers, method=method), timeout=10) as answer:
        return json.load(answer)


# The database and the clock


@app.cli.command("init")
def init() -> None:
    """Make the database: four members joined 17 months ago, of whom one has ever watched anything, an hour ago."""
    with database() as made:
        made.executescript(SCHEMA)
        joined = (now() - timedelta(days=17 * 30)).isoformat()
        for id, name in (("ada", "Ada"), ("ben", "Ben"), ("mia", "Mia"), ("zoe", "Zoe")):
            change(
                "INSERT INTO member (id, email, name, joined_at) VALUES (?, ?, ?, ?)",
                id, f"{id}@example.org", name, joined,
            )  # fmt: skip
            for title in ("t-2", "t-3"):
                change("INSERT INTO favourite VALUES (?, ?, ?)", id, title, joined)
        played = (now() - timedelta(hours=1)).isoformat()
        change("INSERT INTO play (member_id, title_id, at) VALUES ('zoe', 't-1', ?)", played)


def database() -> sqlite3.Connection:
    if "database" not in g:
        g.database = sqlite3.connect(DATABASE, timeout=10)
        g.database.row_factory = sqlite3.Row
    return g.database


@app.teardown_appcontext
def close(error: BaseException | None = None) -> None:
    if (opened := g.pop("database", None)) is not None:
        opened.close()


def rows(statement: str, *values: object) -> list[sqlite3.Row]:
    return database().execute(statement, values).fetchall()


def change(statement: str, *values: object) -> int:
    return database().execute(statement, values).rowcount


def me() -> str:
    return session.get("member", "")


def signed_in() -> sqlite3.Row | None:
    found = rows("SELECT * FROM member WHERE id = ? AND status <> 'erased'", me())
    return found[0] if found else None


def to_home() -> Response:
    return redirect(url_for("home"), 303)


def now() -> datetime:
    """The present instant; or what a file says, where HOST_CLOCK names one, to travel in time as Dormouse's demo does."""
    if CLOCK:
        return datetime.fromisoformat(Path(CLOCK).read_text().strip())
    return datetime.fromtimestamp(time.time(), UTC)
