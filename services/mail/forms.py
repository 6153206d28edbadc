"""A mail as a form: rendered once with marks where its words stand, and filled in for each member.

Jinja decides by what is there and what is not (``{% if w.price %}``), never by what a word says; so mails of one kind
and language in which the same words are there differ in these words alone. A test holds what is filled in equal to what
Jinja renders, for every kind and whatever words.
"""

import re
import textwrap
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from operator import itemgetter
from threading import Lock
from typing import NamedTuple

from markupsafe import escape

from domain.ports import Frame, Pieced, Text

TEXT_WIDTH = 72
LONGEST_SUBJECT = 200

MOST_FORMS = 100
MOST_PARAGRAPHS = 200

AS_THEY_ARE = frozenset({"kind", "service", "public_url"})
"""Words that are the same for all, or that templates look at: they are no marks."""

_BEGIN, _END = "\ue000", "\ue001"
_MARK = re.compile(f"{_BEGIN}([0-9]+){_END}")
# Each begins with what it consumes and looks back afterwards, so that a search leaps from figure to figure.
_DATE = re.compile(r"\d(?<!\w\d)\d?\.? [^\W\d]+(?: \d{4})?\b")
_WEEKDAY = re.compile(r", (?<=[^\W\d], )(?=\d{1,2}\.?\x1f)")
_STAYS = "\x1f"
_ODD = re.compile(r"[\t\n\x0b\x0c\r]|  ")
"""What textwrap makes something else of than words with a space between any two of them."""

Render = Callable[[str, Mapping[str, object], str], str]
"""Renders one of the templates of a kind; the HTML has the subject in its head."""

_NOT_YET = object()
_forms: dict[Hashable, object] = {}
_lock = Lock()


class Rendered(NamedTuple):
    """``subject`` is one line; ``text`` says all that ``html`` says."""

    subject: str
    text: Text
    html: Text


def fill(render: Render, of: Hashable, words: Mapping[str, object]) -> Rendered:
    """A mail with these words. ``of`` names what ``render`` renders: its forms are kept for the next."""
    shape: list[Hashable] = [of]
    values: list[str] = []
    for name, word in words.items():
        # What _is_marked says, without the call: this is done for every word of every mail.
        if type(word) is str and word and name not in AS_THEY_ARE:
            shape.append(name)
            values.append(word)
        elif type(word) is list:
            # The membership: pairs of a label and a value.
            for label, value in word:
                shape.append(label)
                values.append(value)
            shape.append(len(word))
        else:
            shape.append((name, word))
    form = _form(render, tuple(shape), words)
    return (form and form.filled(values)) or slowly(render, words)


def slowly(render: Render, words: Mapping[str, object]) -> Rendered:
    """The same, all by Jinja."""
    subject = _one_line(render("subject.txt", words, ""))
    return Rendered(subject, _wrapped(render("body.txt", words, "")), render("body.html", words, subject))


def _is_marked(name: str, word: object) -> bool:
    return type(word) is str and word != "" and name not in AS_THEY_ARE


def _form(render: Render, shape: Hashable, words: Mapping[str, object]) -> "_Form | None":
    form = _forms.get(shape, _NOT_YET)
    if form is _NOT_YET:
        form = _Form.of(render, words)
        with _lock:
            _forms[shape] = form
            if len(_forms) > MOST_FORMS:
                del _forms[next(iter(_forms))]
    return form  # type: ignore[return-value]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_SUBJECT]


def _wrapped(text: str) -> str:
    """Lines as long as one reads them, no more than one empty line, a date never in two lines, URLs as they are."""
    lines: list[str] = []
    for line in text.strip().splitlines():
        lines += _of_one(line.strip()) if line.strip() else [""] if lines and lines[-1] else []
    return "\n".join(lines) + "\n"


def _of_one(line: str) -> list[str]:
    """The lines of a paragraph, which has come as one."""
    # What is printed and has no two spaces in a row cannot be odd, and that is sooner seen.
    odd = not (line.isprintable() and "  " not in line) and _ODD.search(line)
    if len(line) <= TEXT_WIDTH and not odd:
        return [line]
    indent = "  " if line.startswith("- ") else ""
    if not odd:
        return _broken(line, indent)
    found = textwrap.wrap(
        _held_together(line), TEXT_WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [part.replace(_STAYS, " ") for part in found]


def _broken(line: str, indent: str) -> list[str]:
    """What textwrap does to words with a space between any two of them, in a twentieth of the time."""
    lines: list[str] = []
    start, before, held = 0, "", ""
    while len(line) - start > (room := TEXT_WIDTH - len(before)):
        at, back = line.rfind(" ", start, start + room + 1), True
        while True:
            if at == -1 and back:
                # A word that is longer than a line has one of its own.
                at, back = line.find(" ", start + room + 1), False
            if at == -1:
                return [*lines, before + line[start:]]
            # Only beside a figure can it be the space of a date.
            if not (line[at + 1].isdecimal() or line[at - 1].isdecimal() or line[at - 1] == "."):
                break
            held = held or _held_together(line)
            if held[at] == " ":
                break
            at = line.rfind(" ", start, at) if back else line.find(" ", at + 1)
        lines.append(before + line[start:at])
        start, before = at + 1, indent
    return [*lines, before + line[start:]]


def _held_together(line: str) -> str:
    """With something else than a space where no line may end: in a date, and between it and its weekday."""
    return _WEEKDAY.sub(f",{_STAYS}", _DATE.sub(lambda date: date[0].replace(" ", _STAYS), line))


class _NotOneLine(Exception):
    """A word is more, or less, than part of a line."""


class _Parts:
    """Texts, and between any two of them a word."""

    def __init__(self, text: str) -> None:
        found = _MARK.split(text)
        self.texts = Frame(found[::2])
        which = [int(number) for number in found[1::2]]
        # Of one number alone itemgetter gives no tuple; asked for twice, it does.
        self._chosen = itemgetter(*which, *which[:1]) if which else tuple
        self._count = len(which)
        self._kept: dict[Hashable, str] = {}

    def words(self, values: list[str]) -> list[str]:
        return list(self._chosen(values)[: self._count])

    def paragraph(self, values: list[str]) -> str:
        """As it is wrapped, with a line break at its end. What many mails say is kept. Raises _NotOneLine."""
        words = self._chosen(values)
        found = self._kept.get(words)
        if found is None:
            if len(self._kept) >= MOST_PARAGRAPHS:
                self._kept.clear()
            line = self.filled(values).strip()
            if len(line.splitlines()) != 1:
                raise _NotOneLine
            self._kept[words] = found = "\n".join([*_of_one(line), ""])
        return found

    def filled(self, values: list[str]) -> str:
        return str(Pieced(self.texts, self.words(values)))


@dataclass(frozen=True, slots=True)
class _Form:
    subject: _Parts
    text: Frame
    """Lines as they go out, as many as follow one another in one."""
    paragraphs: list[_Parts]
    """What stands between any two of these, and is wrapped when it is filled in."""
    html: _Parts

    @classmethod
    def of(cls, render: Render, words: Mapping[str, object]) -> "_Form | None":
        """None where what goes in as it is looks like a mark."""
        if any(_BEGIN in str(words.get(name)) for name in AS_THEY_ARE):
            return None
        numbers = count()
        marked: dict[str, object] = {}
        for name, word in words.items():
            if isinstance(word, list):
                marked[name] = [(label, _mark(numbers)) for label, _ in word]
            else:
                marked[name] = _mark(numbers) if _is_marked(name, word) else word
        text, paragraphs = [""], []
        before = ""
        for line in render("body.txt", marked, "").strip().splitlines():
            if _BEGIN in line:
                paragraphs.append(_Parts(line.strip()))
                text.append("")
            elif line.strip() or before:
                text[-1] += "".join(f"{part}\n" for part in _of_one(line.strip()) or [""])
            before = line.strip()
        # The subject is the last word of the HTML.
        html = render("body.html", marked, _mark(numbers))
        return cls(_Parts(render("subject.txt", marked, "")), Frame(text), paragraphs, _Parts(html))

    def filled(self, values: list[str]) -> Rendered | None:
        """None where a word is more, or less, than part of a line."""
        try:
            paragraphs = [one.paragraph(values) for one in self.paragraphs]
        except _NotOneLine:
            return None
        subject = _one_line(self.subject.filled(values))
        values.append(subject)
        all_of_it = "".join(values)
        if "&" in all_of_it or "<" in all_of_it or ">" in all_of_it or "'" in all_of_it or '"' in all_of_it:
            values = [str(escape(value)) for value in values]
        return Rendered(subject, Pieced(self.text, paragraphs), Pieced(self.html.texts, self.html.words(values)))


def _mark(numbers: Iterator[int]) -> str:
    return f"{_BEGIN}{next(numbers)}{_END}"
