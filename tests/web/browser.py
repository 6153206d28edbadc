"""A browser for tests: it keeps cookies, follows redirects, and presses the buttons it finds on the page it sees.

Every page that any test looks at is parsed strictly, and must be content with what this site serves.
"""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

from flask import Flask
from html5lib import HTMLParser as HTMLParser5
from werkzeug.test import TestResponse

from models import Member

SITE = "http://members.example.org"
VOID = {"input", "img", "br", "meta", "link", "hr"}


def well_formed(html: str) -> None:
    """Raises html5lib's ParseError for anything that the standard calls an error."""
    HTMLParser5(strict=True).parse(html)


@dataclass
class Form:
    method: str
    action: str
    inside_main: bool
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class Page(HTMLParser):
    """What is on a page: its forms, links, headings and texts, and the attributes of each element with an id."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.ids: dict[str, dict[str, str]] = {}
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.title = ""
        self.h1 = ""
        self.language = ""
        self._open: list[str] = []
        self._texts: list[str] = []
        self.feed(html)

    @property
    def text(self) -> str:
        """Everything a reader sees in the page's main part, with single spaces."""
        return " ".join(" ".join(self._texts).split())

    def stays_here(self) -> None:
        """Nothing is fetched from elsewhere, and nothing is on the page that its own policy forbids."""
        for tag, attributes in self.elements:
            assert tag not in ("script", "style", "iframe", "object", "embed"), tag
            assert not any(name == "style" or name.startswith("on") for name in attributes), (tag, attributes)
            for name in ("src", "srcset", "poster", "data", *(["href"] if tag == "link" else [])):
                fetched = urlsplit(attributes.get(name, ""))
                assert not fetched.scheme, (tag, attributes)
                assert not fetched.netloc, (tag, attributes)

    @property
    def form(self) -> Form:
        """The only form in the page's main part."""
        [form] = [form for form in self.forms if form.inside_main]
        return form

    def handle_starttag(self, tag: str, found: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in found}
        self.elements.append((tag, attributes))
        if "id" in attributes:
            self.ids[attributes["id"]] = attributes
        if tag not in VOID:
            self._open.append(tag)
        if tag == "html":
            self.language = attributes.get("lang", "")
        if tag == "a":
            self.links.append(attributes.get("href", ""))
        if tag == "form":
            self.forms.append(Form(attributes.get("method", "get"), attributes.get("action", ""), "main" in self._open))
        if tag in ("input", "textarea") and "form" in self._open and "name" in attributes:
            self.forms[-1].fields[attributes["name"]] = attributes.get("value", "")
        if tag == "button" and "form" in self._open:
            self.forms[-1].buttons.append((attributes.get("name", ""), attributes.get("value", "")))

    def handle_endtag(self, tag: str) -> None:
        while tag in self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "title" in self._open:
            self.title += data
        if "h1" in self._open:
            self.h1 += data
        if "main" in self._open:
            self._texts.append(data)


class Browser:
    def __init__(self, app: Flask, language: str = "en", *, strict: bool = True) -> None:
        self.strict = strict
        self.app = app
        self.client = app.test_client()
        self.language = language
        self.url = SITE + "/"
        self.response: TestResponse
        self.page: Page

    def open(self, url: str, method: str = "GET", follow: bool = True, **sent: object) -> TestResponse:
        """Open a path, or an absolute URL of this site, and see what is there."""
        self.url = urljoin(self.url, url)
        parts = urlsplit(self.url)
        assert parts.netloc == urlsplit(SITE).netloc, f"{url} leads away"
        self.response = self.client.open(
            parts.path + (f"?{parts.query}" if parts.query else ""),
            method=method,
            headers={"Accept-Language": self.language},
            **sent,  # type: ignore[arg-type]
        )
        if follow and self.response.status_code in (301, 302, 303, 307, 308):
            return self.open(self.response.headers["Location"])
        html = self.response.text if self.response.mimetype == "text/html" else ""
        if html and self.strict:
            well_formed(html)
        self.page = Page(html)
        # The demo's mailbox shows a mail as it is, shut in a frame: tests/demo/test_pages.py looks at how.
        if not parts.path.startswith("/demo/mail/"):
            self.page.stays_here()
        return self.response

    def press(
        self,
        name: str = "",
        value: str = "",
        *,
        form: Form | None = None,
        csrf: bool = True,
        follow: bool = True,
        **filled: str,
    ) -> TestResponse:
        """Press a button of the page's form, or of ``form``, with its fields as they are but for those ``filled``."""
        form = form or self.page.form
        assert not name or (name, value) in form.buttons, f"there is no button {name}={value}"
        unknown = set(filled) - set(form.fields)
        assert not unknown, f"the form has no {unknown}"
        data = {**form.fields, **filled, **({name: value} if name else {})}
        if not csrf:
            data.pop("csrf_token", None)
        return self.open(form.action or self.url, form.method.upper(), follow, data=data)

    def sign_in_as(self, member: Member) -> None:
        """Have the session that signing in gives, without going by mail."""
        with self.client.session_transaction() as session:
            session["_user_id"] = f"{member.public_id}.{member.session_generation}"
            session.permanent = True
