"""The words that services differ in: `make messages` brings the catalogues of ``translations/variants/`` up to date.

Each variant is a catalogue that lies over the usual one and holds only what it says differently (settings.py says which
lie over which): ``du`` the informal German, ``abo`` "Abo" and "subscription" instead of "Mitgliedschaft" and
"membership", ``abo-du`` the German of both at once. English is replaced word for word; German is written. An entry
remembers which German it was written for, so that a change of that asks for its variants, too.

Texts for operators alone, and those of the demo, have no variants.
"""

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "translations" / "de" / "LC_MESSAGES" / "messages.po"
VARIANTS = (("du", "de"), ("abo", "de"), ("abo-du", "de"), ("abo", "en"))
ROOMS = ("blueprints", "domain", "services", "templates")
NOT_FOR_MEMBERS = re.compile(
    r"templates/(email/(campaign_ready|approve_by|needs_attention)|demo|console)/|blueprints/(demo|console)[/.]"
)

HEADER = """\
# What this variant says differently. How to change it: docs/wording.md.
# This file is distributed under the same license as Dormouse.
#"""

SHE = "läuft|endet|wurde|war|ist|wird|kostet|steht"
"""After these a "Sie" that begins a sentence is the membership."""
FORMAL = re.compile(rf"\b(?:Ihnen|Ihr(?:e[mnrs]?)?)\b|\bSie\b(?! (?:{SHE})\b)")
MEMBERSHIP = re.compile(r"mitgliedschaft", re.I)


def path_of(variant: str, language: str) -> Path:
    return ROOT / "translations" / "variants" / variant / language / "LC_MESSAGES" / "messages.po"


def forms(text: object) -> tuple[str, ...]:
    return tuple(text) if isinstance(text, list | tuple) else (str(text or ""),)


def for_members() -> frozenset[str]:
    """The first form of every text that a member may read."""
    with (ROOT / "babel.cfg").open() as file:
        methods, options = parse_mapping_cfg(file)
    keywords = {**DEFAULT_KEYWORDS, "lazy_gettext": None}
    return frozenset(
        forms(text)[0]
        for room in ROOMS
        for name, _, text, _, _ in extract_from_dir(str(ROOT / room), methods, options, keywords)
        if not NOT_FOR_MEMBERS.search(f"{room}/{name}")
    )


def base() -> Catalog:
    with BASE.open("rb") as file:
        return read_po(file, locale="de")


def kept(variant: str, language: str) -> Catalog:
    path = path_of(variant, language)
    if not path.exists():
        return Catalog(locale=language)
    with path.open("rb") as file:
        return read_po(file, locale=language)


def members_messages() -> Iterator[Message]:
    texts = for_members()
    yield from (message for message in base() if message.id and forms(message.id)[0] in texts)


def says_you(message: Message) -> bool:
    return any(FORMAL.search(text) for text in forms(message.string))


def says_membership(message: Message) -> bool:
    return any(MEMBERSHIP.search(text) for text in forms(message.string))


def needed(variant: str, language: str) -> dict[str, Message]:
    """By the first form of its original, what a variant has to say in its own way.

    Where "sie" alone means the membership no rule finds it: what the catalogue of "Abo" has already, it keeps.
    """
    if language == "en":
        return {forms(one.id)[0]: one for one in members_messages() if re.search("membership", str(one.id), re.I)}
    spoken = kept("abo", "de")
    found = {}
    for message in members_messages():
        abo = says_membership(message) or spoken.get(message.id) is not None
        if {"du": says_you(message), "abo": abo, "abo-du": abo and says_you(message)}[variant]:
            found[forms(message.id)[0]] = message
    return found


def written_for(message: Message) -> str:
    return f"for {hashlib.sha256(repr(forms(message.string)).encode()).hexdigest()[:12]}"


def subscription(text: str) -> str:
    return text.replace("membership", "subscription").replace("Membership", "Subscription")


def bring_up_to_date(variant: str, language: str) -> int:
    """Write a variant's catalogue anew, with an empty entry for what it lacks; how many that are."""
    before = kept(variant, language)
    after = Catalog(locale=language, project="Dormouse", charset="utf-8", fuzzy=False, header_comment=HEADER)
    after.last_translator, after.language_team = "Dormouse contributors", ""
    # Nothing in it changes from day to day, or two branches could not be joined.
    after.creation_date = after.revision_date = datetime(2026, 11, 23, tzinfo=UTC)
    missing = 0
    for message in needed(variant, language).values():
        if language == "en":
            texts: tuple[str, ...] = tuple(subscription(text) for text in forms(message.id))
        else:
            had = before.get(message.id)
            current = had is not None and written_for(message) in had.user_comments
            texts = forms(had.string) if had is not None and current else ("",) * len(forms(message.id))
        missing += not all(texts)
        plural = isinstance(message.id, list | tuple)
        after.add(
            message.id,
            texts if plural else texts[0],
            flags=message.flags,
            user_comments=[] if language == "en" else [written_for(message)],
        )
    path = path_of(variant, language)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, after, width=120, sort_output=True, omit_header=False)
    with path.with_suffix(".mo").open("wb") as file:
        write_mo(file, after)
    return missing


def main() -> None:
    for variant, language in VARIANTS:
        missing = bring_up_to_date(variant, language)
        if missing:
            print(f"{missing} texts are missing in {path_of(variant, language).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
