"""A mail as a form: rendered once with marks where its words stand, and filled in for each member.

Jinja decides by what is there and what is not (``{% if w.price %}``), never by what a word says; so mails of one kind
and language in which the same words are there differ in these words alone. Which words a form depends on is seen when
it is rendered: those that its templates ask for. A test holds what is filled in equal to what Jinja renders, for every
kind and whatever words.
"""

import re
import textwrap
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from operator import itemgetter
from secrets import token_hex
from threading import Lock
from typing import Any, NamedTuple

from markupsafe import escape

from domain.ports import Frame, Pieced, Text

TEXT_WIDTH = 72
LONGEST_SUBJECT = 200

MOST_FORMS = 100
"""In all: a round has up to some twenty for each kind and language, by what is known of its members."""
MOST_PARAGRAPHS = 200

OF_A_ROUND = ("deadline", "deadline_day", "deadline_short", "up_to", "lapsed", "lapsed_short")
"""Words that name the one day of a round: its forms have them already."""

AS_THEY_ARE = frozenset({"kind", "service", "public_url", *OF_A_ROUND})
"""Words that are the same for many, or that templates look at: they are no marks."""

# What only this process knows, so that no word can look like a mark.
_BEGIN, _END = f"\ue000{token_hex(8)} ", "\ue001"
_MARK = re.compile(f"{_BEGIN}([^{_END}]+){_END}")
# Each begins with what it consumes and looks back afterwards, so that a search leaps from figure to figure.
_DATE = re.compile(r"\d(?<!\w\d)\d?\.? [^\W\d]+(?: \d{4})?\b")
_WEEKDAY = re.compile(r", (?<=[^\W\d], )(?=\d{1,2}\.?\x1f)")
_STAYS = "\x1f"
_ODD = re.compile(r"[\t\n\x0b\x0c\r]")
"""What textwrap makes something else of than words with a space between any two of them; so it does of two spaces."""

Render = Callable[[str, Mapping[str, object], str], str]
"""Renders one of the templates of a kind; the HTML has the subject in its head."""

_forms: "dict[Hashable, tuple[_Form, ...]]" = {}
"""By what they are of and the day they name."""
_lock = Lock()


class Rendered(NamedTuple):
    """``subject`` is one line; ``text`` says all that ``html`` says."""

    subject: str
    text: Text
    html: Text


def fill(render: Render, of: Hashable, words: Mapping[str, object]) -> Rendered:
    """A mail with these words. ``of`` names what ``render`` renders: its forms are kept for the next."""
    key = (of, words.get("deadline"))
    for form in _forms.get(key, ()):
        values = form.values(words)
        if values is not None:
            return form.filled(values) or slowly(render, words)
    form = _Form(render, words)
    _keep(key, form)
    values = form.values(words)
    assert values is not None
    return form.filled(values) or slowly(render, words)


def _keep(key: Hashable, form: "_Form") -> None:
    """A new one; beyond so many, those of the key are forgotten to which none has come for the longest time."""
    with _lock:
        _forms[key] = (*_forms.pop(key, ())[-MOST_FORMS + 1 :], form)
        while sum(map(len, _forms.values())) > MOST_FORMS:
            del _forms[next(iter(_forms))]


def slowly(render: Render, words: Mapping[str, object]) -> Rendered:
    """The same, all by Jinja."""
    subject = _one_line(render("subject.txt", words, ""))
    return Rendered(subject, _wrapped(render("body.txt", words, "")), render("body.html", words, subject))


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
    # Where all is printed there is no tab or line break to look for, and that is sooner seen.
    odd = "  " in line or (not line.isprintable() and _ODD.search(line))
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


class _Parts:
    """Texts, and between any two of them a word; ``places`` tells where among all values each is found."""

    def __init__(self, text: str, places: Mapping[str, int]) -> None:
        found = _MARK.split(text)
        self.texts = Frame(found[::2])
        self.words = _those_at([places[name] for name in found[1::2]])
        """Those of all values that stand in it."""
        self._format = "%s".join([text.replace("%", "%%") for text in self.texts])
        self._kept: dict[tuple[str, ...], str] = {}

    def filled(self, values: tuple[str, ...], made: Callable[[str], str]) -> str:
        """What ``made`` makes of it. What many mails say is made once."""
        words = self.words(values)
        found = self._kept.get(words)
        if found is None:
            if len(self._kept) >= MOST_PARAGRAPHS:
                self._kept.clear()
            self._kept[words] = found = made(self._format % words)
        return found


class _Form:
    """What ``render`` renders for these words, and for all others that differ in what their texts say alone."""

    def __init__(self, render: Render, words: Mapping[str, object]) -> None:
        watched = _Watched(words)
        subject, text = (render(name, watched, "") for name in ("subject.txt", "body.txt"))
        html = render("body.html", watched, _mark(_SUBJECT))
        asked = sorted(watched.asked & words.keys())
        marked = [name for name in asked if name in watched.marked]
        fixed = [name for name in asked if name not in watched.marked]
        self._texts, self._others = _those_at(marked), _those_at(fixed)
        self._others_then = self._others(words)
        self._not_there = watched.asked - words.keys()
        # The subject stands in the HTML as one more word.
        places = {name: place for place, name in enumerate([*marked, _SUBJECT])}
        self._subject = _Parts(subject, places)
        self._html = _Parts(html, places)
        lines, paragraphs, before = [""], [], ""
        for line in text.strip().splitlines():
            if _BEGIN in line:
                paragraphs.append(_Parts(line.strip(), places))
                lines.append("")
            elif line.strip() or before:
                lines[-1] += "".join(f"{part}\n" for part in _of_one(line.strip()) or [""])
            before = line.strip()
        self._lines = Frame(lines)
        """As they go out, as many as follow one another in one."""
        self._paragraphs = paragraphs
        """What stands between any two of these, and is wrapped when it is filled in."""

    def values(self, words: Mapping[str, object]) -> tuple[str, ...] | None:
        """What is to be filled in; None for words of which Jinja would make another mail."""
        try:
            if self._others(words) != self._others_then or not self._not_there.isdisjoint(words):
                return None
            values = self._texts(words)
        except KeyError:
            return None
        return None if "" in values or not _TEXTS.issuperset(map(type, values)) else values

    def filled(self, values: tuple[str, ...]) -> Rendered | None:
        """None where a word is more, or less, than part of a line."""
        try:
            paragraphs = [one.filled(values, _paragraph) for one in self._paragraphs]
        except _NotOneLine:
            return None
        subject = self._subject.filled(values, _one_line)
        words = self._html.words((*values, subject))
        said = "".join(words)
        if "&" in said or "<" in said or ">" in said or "'" in said or '"' in said:
            words = tuple([str(escape(word)) for word in words])
        return Rendered(subject, Pieced(self._lines, paragraphs), Pieced(self._html.texts, words))


class _Watched(Mapping[str, object]):
    """Words with marks in place of texts, of which it is known afterwards which have been asked for."""

    def __init__(self, words: Mapping[str, object]) -> None:
        self.asked: set[str] = set()
        self.marked = {
            name: _mark(name)
            for name, word in words.items()
            if type(word) is str and word != "" and name not in AS_THEY_ARE
        }
        self._words = {**words, **self.marked}

    def __getitem__(self, name: str) -> object:
        self.asked.add(name)
        return self._words[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __len__(self) -> int:
        return len(self._words)


_SUBJECT = "the subject"
_TEXTS = frozenset({str})


def _mark(name: str) -> str:
    return f"{_BEGIN}{name}{_END}"


def _those_at(places: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    match places:
        case []:
            return lambda found: ()
        case [place]:
            # Of one alone itemgetter gives no tuple.
            return lambda found: (found[place],)
    return itemgetter(*places)


class _NotOneLine(Exception):
    """A word is more, or less, than part of a line."""


def _paragraph(text: str) -> str:
    """As it is wrapped, with a line break at its end. Raises _NotOneLine."""
    line = text.strip()
    if len(line.splitlines()) != 1:
        raise _NotOneLine
    return "\n".join([*_of_one(line), ""])
