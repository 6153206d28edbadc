"""A mail's subject, text and HTML, from plain facts, in its reader's language. Needs an application, no request.

Each kind has a folder under templates/email/ with ``subject.txt``, ``body.txt`` and ``body.html``; they get ``w``, the
facts in words (services/mail/words.py). Jinja renders them once for a form (services/mail/forms.py), which is filled in
for each mail. The style sheet of the mails is written into the elements once a template, when it is loaded, because
mail programs drop style sheets.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

from css_inline import CSSInliner
from flask import Flask, current_app
from flask_babel import force_locale
from jinja2 import BaseLoader, Environment

from domain.notices import Kind
from services import wording
from services.mail import forms
from services.mail import words as mail_words
from services.mail.forms import Rendered
from services.mail.words import Facts
from settings import Settings

Content = tuple[Kind, Facts, str | None]
"""A mail's kind, its facts, and its link."""


def render(
    settings: Settings, kind: Kind, locale: str | None, facts: Facts, link: str | None, now: datetime
) -> Rendered:
    """Word one mail. ``link`` is the absolute URL it carries, where its kind has one.

    Raises what Jinja raises (``jinja2.TemplateError``), and ValueError for facts that cannot be worded.
    """
    with wording.speaking(wording.supported(locale)):
        subject, text, html = render_all(settings, [(kind, facts, link)], now)[0]
        return Rendered(subject, str(text), str(html))


def render_all(settings: Settings, mails: Sequence[Content], now: datetime) -> list[Rendered]:
    """The same of several, in the present language.

    Each step is done for all of them before the next: what a processor has just done it does again in less time, and
    for a mail by itself all that ``letters.compose_all`` does takes half as long again.
    """
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    language = wording.language()
    words = [mail_words.in_words(settings, kind, facts, link, now) for kind, facts, link in mails]
    return [
        forms.fill(renderer(app, kind, language), (app, kind, language), of_one)
        for (kind, _, _), of_one in zip(mails, words, strict=True)
    ]


def renderer(app: Flask, kind: Kind, language: str) -> forms.Render:
    """Jinja, for the templates of one kind in the present language."""

    def rendered(name: str, words: Mapping[str, object], subject: str) -> str:
        template = _templates(app).get_template(f"email/{kind}/{name}")
        with force_locale(language):
            return template.render(w=words, language=language, subject=subject)

    return rendered


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
