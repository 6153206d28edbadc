"""A mail's subject, text and HTML, from plain facts, in its reader's language. Needs an application, no request.

Each kind has a folder under templates/email/ with ``subject.txt``, ``body.txt`` and ``body.html``; they get ``w``, the
facts in words (services/mail/words.py). The style sheet of the mails is written into the elements once a template, when
it is loaded, because mail programs drop style sheets; what is rendered a mail is plain Jinja.
"""

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from css_inline import CSSInliner
from flask import Flask, current_app
from jinja2 import BaseLoader, Environment

from domain.notices import Kind
from services import wording
from services.mail import words as mail_words
from services.mail.words import Facts
from settings import Settings

TEXT_WIDTH = 72
LONGEST_SUBJECT = 200

_DATE = re.compile(r"(?:[^\W\d]+, )?\b\d{1,2}\.? [^\W\d]+(?: \d{4})?\b")
_STAYS = "\x1f"


@dataclass(frozen=True, slots=True)
class Rendered:
    """``subject`` is one line; ``text`` says all that ``html`` says."""

    subject: str
    text: str
    html: str


def render(
    settings: Settings, kind: Kind, locale: str | None, facts: Facts, link: str | None, now: datetime
) -> Rendered:
    """Word one mail. ``link`` is the absolute URL it carries, where its kind has one.

    Raises what Jinja raises (``jinja2.TemplateError``), and ValueError for facts that cannot be worded.
    """
    templates = _templates(current_app._get_current_object())  # type: ignore[attr-defined]
    with wording.in_language(locale) as language:
        words = mail_words.in_words(settings, kind, facts, link, now)

        def rendered(name: str, **more: object) -> str:
            return templates.get_template(f"email/{kind}/{name}").render(w=words, language=language, **more)

        subject = " ".join(rendered("subject.txt").split())[:LONGEST_SUBJECT]
        return Rendered(subject, _wrapped(rendered("body.txt")), rendered("body.html", subject=subject))


def _wrapped(text: str) -> str:
    """Lines as long as one reads them, no more than one empty line, a date never in two lines, URLs as they are."""
    lines: list[str] = []
    for line in text.strip().splitlines():
        line = _DATE.sub(lambda date: date[0].replace(" ", _STAYS), line.strip())
        if not line:
            if lines and lines[-1]:
                lines.append("")
            continue
        indent = "  " if line.startswith("- ") else ""
        lines += textwrap.wrap(
            line, TEXT_WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    return "\n".join(lines).replace(_STAYS, " ") + "\n"


@lru_cache(maxsize=8)
def _templates(app: Flask) -> Environment:
    """The application's templates, those of HTML mails with their style in each element."""
    env = app.jinja_env
    assert env.loader is not None
    return env.overlay(loader=StyledLoader(env.loader))


class StyledLoader(BaseLoader):
    """Templates from another loader; ``email/**.html`` with the rules of ``email/mail.css`` written into the elements.

    The inliner takes Jinja for text, so in those templates Jinja stands where text may stand, or in an attribute.
    What cannot be inlined (dark mode, narrow screens) stays in the base template's own style element.
    """

    def __init__(self, original: BaseLoader) -> None:
        self._original = original

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        source, filename, up_to_date = self._original.get_source(environment, template)
        if template.startswith("email/") and template.endswith(".html"):
            css, _, _ = self._original.get_source(environment, "email/mail.css")
            if source.lstrip().lower().startswith("<!doctype"):
                whole = CSSInliner(keep_style_tags=True, load_remote_stylesheets=False, extra_css=css)
                source = whole.inline(source)
            else:
                source = CSSInliner(load_remote_stylesheets=False).inline_fragment(source, css)
        return source, filename, up_to_date
