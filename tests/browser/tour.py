"""A tour of every page and state, as visitors come by them. Who takes the tour looks at each stop: axe, or a camera."""

from collections.abc import Iterator

from flask import Flask
from playwright.sync_api import BrowserContext, Page, Response

from domain.links import Purpose
from models import Member
from tests.browser.people import CASES, LATER, People

ERRORS = (400, 403, 404, 405, 410, 413, 429, 500, 503)


def failing_pages(app: Flask) -> None:
    """Pages that only fail, one for each error; put in before the first request."""
    from flask import abort

    app.add_url_rule("/fail/<int:status>", "fail", lambda status: abort(status))
    app.testing = False
    app.config["PROPAGATE_EXCEPTIONS"] = False


class Tour:
    def __init__(self, context: BrowserContext, app: Flask, people: People, site: str, language: str) -> None:
        self.context, self.app, self.people, self.site, self.language = context, app, people, site, language
        self.page: Page = context.new_page()
        self.status = 0
        self.sent = ""
        """The page as the server sent it: what the browser shows is already mended."""
        self.leave()

    def leave(self) -> None:
        """A visitor anew, in the language of the tour."""
        self.context.clear_cookies()
        self.open(f"/programme?lang={self.language}")

    def enter(self, member: Member) -> None:
        self.people.session.refresh(member)
        with self.app.test_client() as client:
            with client.session_transaction() as session:
                session["_user_id"] = f"{member.public_id}.{member.session_generation}"
                session["lang"] = self.language
                session["device"] = self.people.device(member)
            cookie = client.get_cookie("dormouse")
        self.people.session.commit()
        assert cookie is not None
        self.context.add_cookies([{"name": "dormouse", "value": cookie.value, "url": self.site}])

    def open(self, path: str) -> None:
        self._come_by(self.page.goto(self.site + path))

    def press(self, selector: str = "main form button", **filled: str) -> None:
        for name, value in filled.items():
            self.page.fill(f"main [name={name}]", value)
        # What the browser itself would hold back is for the page to answer here.
        self.page.locator("main form").first.evaluate("form => { form.noValidate = true }")
        with self.page.expect_navigation() as done:
            self.page.locator(selector).first.click()
        self._come_by(done.value)

    def _come_by(self, answer: Response | None) -> None:
        """Behind redirects it is the last answer, that of the page one gets to see."""
        assert answer is not None
        self.status, self.sent = answer.status, answer.text()

    def stops(self) -> Iterator[str]:
        """The name of each place, once the page is there."""
        for name in self._all():
            assert self.status < 500 or name.startswith("error-"), f"{name}: {self.status}"
            yield name

    def _all(self) -> Iterator[str]:
        yield from self._strangers()
        yield from self._check_in()
        yield from self._account()
        yield from self._come_back()
        for status in ERRORS:
            self.open(f"/fail/{status}")
            assert self.status == status
            yield f"error-{status}"

    def _strangers(self) -> Iterator[str]:
        people = self.people
        self.open("/programme")
        yield "programme"
        self.open("/sign-in")
        yield "sign-in"
        self.press(email="mia@")
        yield "sign-in-wrong"
        self.press(email="nobody@example.org")
        yield "sign-in-sent"
        self.open(people.link(Purpose.SIGN_IN, people.using))
        yield "sign-in-link"
        self.open(people.link(Purpose.SIGN_IN, people.using, over=True))
        yield "sign-in-link-over"
        both = people.session.query(Member).filter_by(email="both@example.org").first()
        assert both is not None
        self.open(people.link(Purpose.SIGN_IN, both))
        self.press()
        yield "sign-in-which"
        self.leave()
        self.open("/sign-out")
        yield "signed-out"
        self.open("/end-membership")
        yield "end-without-signing-in"
        self.press("main form button", who="", email="mia@")
        yield "end-without-signing-in-wrong"
        self.press("main form button", who="Mia", email="nobody@example.org")
        yield "end-without-signing-in-received"
        self.open("/come-back")
        yield "come-back-hello"

    def _check_in(self) -> Iterator[str]:
        people = self.people
        acted = {"pressed-at-once", "to-keep", "to-end", "to-decline", "not-mine", "voided", "to-end-elsewhere"}
        for state in CASES:
            if state not in acted:
                self.leave()
                self.open(people.check_in(state))
                yield f"check-in-{state}"
        self.leave()
        self.open(people.check_in("voided"))
        yield "check-in-asked-anew"
        self.open("/check-in/broken")
        yield "check-in-broken"

        self.open(people.check_in("to-keep"))
        self.press("button[value=keep]")
        yield "check-in-just-kept"
        self.leave()
        self.open(people.check_in("to-keep"))
        yield "check-in-kept"
        people.receipt_just_went_out("to-keep")
        self.press("button[value=lapse]")
        assert self.page.locator("h1").evaluate("h1 => h1 === document.activeElement")
        yield "check-in-one-step-left"
        self.open(people.check_in("to-end"))
        self.press("button[value=lapse]")
        yield "check-in-just-ended"
        self.leave()
        self.open(people.check_in("to-end"))
        yield "check-in-lapsing"

        self.open(people.check_in("to-end-elsewhere"))
        self.press("button[value=lapse]")
        yield "check-in-to-end-elsewhere"

        self.open(people.check_in("pressed-at-once"))
        self.context.clear_cookies()
        self.context.add_cookies([{"name": "other", "value": "1", "url": self.site}])
        self.press("button[value=keep]")
        assert self.status == 400
        yield "check-in-without-cookies"
        self.leave()
        self.open(people.check_in("pressed-at-once"))
        self.page.locator("button[value=keep]").evaluate("button => { button.value = 'perhaps' }")
        self.press("main form button")
        assert self.status == 400
        yield "check-in-unknown-answer"

        self.open(people.check_in("to-decline") + "/reminders")
        yield "check-in-reminders"
        self.press()
        yield "check-in-reminders-declined"
        self.press()
        yield "check-in-reminders-wanted-again"
        self.open(people.check_in("not-mine") + "/not-mine")
        yield "check-in-not-mine"
        self.press()
        yield "check-in-not-mine-said"
        self.enter(people.using)
        self.open("/check-in")
        yield "check-in-nothing"

    def _account(self) -> Iterator[str]:
        people = self.people
        for state in ("open", "to-keep", "to-end", "erasing", "unreachable"):
            self.enter(people.members[state])
            self.open("/account")
            yield f"account-{state}"
        self.enter(people.gone)
        self.open("/account")
        yield "account-lapsed"
        self.enter(people.members["billed-elsewhere"])
        for name in ("account", "account/end", "account/erase"):
            self.open(f"/{name}")
            yield f"{name.replace('/', '-')}-billed-elsewhere"
        self.enter(people.members["unreachable"])
        self.open("/account/email")
        yield "account-email-unreachable"
        self.enter(people.using)
        for name in ("account", "account/end", "account/language", "account/email", "account/erase", "sign-out"):
            self.open(f"/{name}")
            yield name.replace("/", "-")
        self.open("/account/email")
        self.press(email="using@")
        yield "account-email-wrong"
        self.press(email="mia.new@example.org")
        yield "account-email-sent"
        self.open(people.link(Purpose.NEW_ADDRESS, people.using))
        yield "account-email-link"
        self.press()
        yield "account-email-half"
        self.open(people.link(Purpose.NEW_ADDRESS, people.members["to-decline"], proven=True))
        yield "account-email-second-link"
        self.press("button[value=no]")
        yield "account-email-refused"
        self.open(people.link(Purpose.NEW_ADDRESS, people.using, proven=True))
        self.press()
        yield "account-email-changed"
        people.session.refresh(people.using)
        self.open(people.link(Purpose.NEW_ADDRESS, people.using, over=True))
        yield "account-email-link-over"
        self.open("/account/erase")
        self.press()
        yield "account-erase-sent"
        self.open(people.link(Purpose.ERASE, people.using, over=True))
        yield "account-erase-link-over"
        self.open(people.link(Purpose.ERASE, people.using))
        yield "account-erase-link"
        self.press()
        yield "account-erased"

    def _come_back(self) -> Iterator[str]:
        people = self.people
        for name, member in (("", people.gone), ("-undo", people.gone_annual), ("-overdue", people.gone_long)):
            self.leave()
            self.open(people.link(Purpose.COME_BACK, member))
            yield f"come-back{name}"
        self.leave()
        self.open("/come-back/broken")
        yield "come-back-broken"
        self.open("/come-back/" + "A" * 43)
        yield "come-back-unknown"
        link = people.link(Purpose.COME_BACK, people.gone)
        self.open(link)
        people.change(people.gone, price_minor=1499)
        self.press()
        yield "come-back-changed"
        self.press()
        yield "come-back-welcome"
        self.open(link)
        yield "come-back-again"
        self.enter(people.members["ended"])
        self.open("/come-back")
        yield "come-back-ended"
        self.leave()


__all__ = ["LATER", "Tour", "failing_pages"]
