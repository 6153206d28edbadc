"""README.md leads to every page of the documentation and to every picture, and nowhere that is not there."""

import re

from settings import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def targets() -> set[str]:
    return {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", TEXT) if not link.startswith("http")}


def test_every_page_of_the_documentation_is_linked() -> None:
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= targets()


def test_every_link_leads_somewhere() -> None:
    assert [target for target in sorted(targets()) if not (ROOT / target).exists()] == []


def test_links_between_pages_lead_somewhere() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            target = link.partition("#")[0]
            assert link.startswith("http") or (page.parent / target).exists(), f"{page.name}: {link}"
