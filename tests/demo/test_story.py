"""The whole programme, lived through by clicking alone, as README.md tells it."""

import json
import re

from blueprints.demo.mailbox import Mail
from tests.demo.conftest import Demo
from tests.web.browser import Browser, Form


def external_ids(demo: Demo, role: str) -> list[str]:
    return [one["external_id"] for one in json.loads((demo.folder / "cast.json").read_text()) if one["role"] == role]


def form_to(browser: Browser, path: str) -> Form:
    [form] = [form for form in browser.page.forms if form.action.endswith(path)]
    return form


def be(browser: Browser, external_id: str) -> None:
    browser.open("/demo/")
    browser.press(form=form_to(browser, f"/demo/be/{external_id}"))
    assert browser.url.endswith("/account")


def travel(browser: Browser, to: str) -> None:
    browser.press("to", to, form=form_to(browser, "/demo/travel"))


def state(browser: Browser, external_id: str) -> str:
    """The row of a person on the first page."""
    html = browser.open("/demo/").text
    row = re.search(rf'<li id="{external_id}">(.*?)</li>', html, re.S)
    assert row is not None
    return re.sub(r"<[^>]*>", " ", row[1])


def mails_of(browser: Browser, external_id: str) -> list[str]:
    """The links to somebody's mails, newest first: one click from the first page."""
    html = browser.open("/demo/").text
    row = re.search(rf'<li id="{external_id}">(.*?)</li>', html, re.S)
    assert row is not None
    found = re.search(r'href="([^"]*/demo/mail\?[^"]*)"', row[1])
    assert found is not None
    browser.open(found[1].replace("&amp;", "&"))
    return [link for link in browser.page.links if re.search(r"/demo/mail/\d+$", link)]


def read(demo: Demo, browser: Browser, link: str) -> Mail:
    """Open a mail in the mailbox; what is on its page is checked against the file."""
    page = browser.open(link).text
    [mail] = [mail for mail in demo.mails("") if link.endswith(f"/{mail.number}")]
    assert f"/demo/mail/{mail.number}/html" in page
    return mail


def check_in_link(mail: Mail) -> str:
    [link] = [link for link in mail.links if "/check-in/" in link]
    return link


def test_the_story_by_clicking(demo: Demo) -> None:
    browser = demo.browser()
    keeps, ends, *_ = external_ids(demo, "never_used")
    silent, uses = external_ids(demo, "stopped_using")[:2]

    # The first page says what this does, in one sentence.
    browser.open("/demo/")
    assert re.search(r"€[\d.,]+ a month are paid by \d+ people who do not use it", browser.page.text)

    # A warned member reads the mail and keeps the membership.
    warning = read(demo, browser, mails_of(browser, keeps)[0])
    browser.open(check_in_link(warning))
    browser.press("answer", "keep")
    assert "keeps the membership" in state(browser, keeps)

    # Another one ends it, by the mail's link as well.
    browser.open(check_in_link(read(demo, browser, mails_of(browser, ends)[0])))
    browser.press("answer", "lapse")
    assert "ends the membership" in state(browser, ends)

    # A third says nothing. A fourth uses the service, and is left alone.
    assert "no answer yet" in state(browser, silent)
    browser.press(form=form_to(browser, f"/demo/use/{uses}"))
    assert "it ends on" not in state(browser, uses)

    # Whoever is asked sees it when signed in, too, and what was saved is on the page.
    be(browser, silent)
    assert browser.page.ids["membership-notice"]["role"] == "region"
    of_the_end = titles(browser, ends)
    assert of_the_end

    browser.open("/demo/")
    travel(browser, "reminder")
    assert len(mails_of(browser, silent)) == 2
    browser.open("/demo/")
    travel(browser, "month_end")

    for gone in (ends, silent):
        assert "saved until" in state(browser, gone)
    for staying in (keeps, uses):
        assert "saved until" not in state(browser, staying)
    farewell = read(demo, browser, mails_of(browser, ends)[0])
    assert "/come-back" in farewell.text

    # The lists are intact, and coming back is one button.
    browser.open("/demo/")
    travel(browser, "nine_months")
    assert "saved until" in state(browser, ends)
    be(browser, ends)
    browser.open("/come-back")
    assert all(title in browser.response.text for title in of_the_end)
    browser.press("order", "restart")
    assert "saved until" not in state(browser, ends)
    assert titles(browser, ends) == of_the_end

    # Whoever does not come back is forgotten.
    browser.open("/demo/")
    travel(browser, "past_keep_until")
    assert "All data has been erased" in state(browser, silent)
    assert "All data has been erased" not in state(browser, ends)
    assert "All data has been erased" not in state(browser, keeps)


def titles(browser: Browser, external_id: str) -> list[str]:
    """The titles in somebody's lists as the account page shows them, in its order."""
    be(browser, external_id)
    shelves = re.search(r'<div class="lists">(.*?)<h2', browser.response.text, re.S)
    assert shelves is not None
    return re.findall(r"<li>([^<]+)</li>", shelves[1])
