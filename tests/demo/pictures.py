"""Takes the README's pictures from a running demo: ``python -m tests.demo.pictures`` (with Chromium in $CHROMIUM)."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Page, sync_playwright

from settings import ROOT
from tests.demo.test_command import environment
from tests.ports import held_port

FOLDER = ROOT / "docs" / "pictures"


def take(page: Page, site: str) -> None:
    """The story of the README: one never-used member says nothing, is ended, and comes back."""

    def picture(name: str) -> None:
        page.wait_for_load_state("networkidle")
        page.screenshot(path=FOLDER / f"{name}.png")

    def travel(to: str) -> None:
        page.click(f'.demo-bar button[value="{to}"]')
        page.wait_for_load_state()

    def newest_mail() -> str:
        page.click(f"{who} a")
        page.click(".demo-mails a >> nth=0")
        return str(page.url)

    page.goto(f"{site}/demo/")
    who = "#" + str(page.locator('li:has-text("Joined, never used it")').first.get_attribute("id"))
    picture("1-people")
    mail = newest_mail()
    picture("2-mail")
    link = page.locator("pre.demo-text a").first.get_attribute("href")
    page.goto(str(link))
    picture("3-check-in")
    travel("month_end")
    page.goto(f"{site}/demo/")
    assert newest_mail() != mail
    picture("4-ended")
    # By then nothing is paid for any more: coming back is an order with a price.
    travel("nine_months")
    page.goto(f"{site}/demo/")
    page.click(f"{who} form button >> nth=0")
    page.goto(f"{site}/come-back")
    picture("5-come-back")
    page.click('button[name="order"]')
    page.wait_for_load_state()
    page.goto(f"{site}/account")
    picture("6-back")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with (
        TemporaryDirectory() as instance,
        held_port() as port,
        subprocess.Popen(
            [sys.executable, "-m", "flask", "demo", "--port", str(port)],
            cwd=ROOT,
            env=environment(Path(instance)),
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        site = next(found[0] for line in process.stdout if (found := re.search(r"http://localhost:\d+", line)))
        try:
            with sync_playwright() as playwright:
                chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": 900, "height": 860}, locale="en-GB", color_scheme="light")
                page.set_default_timeout(120_000)
                take(page, site)
                browser.close()
        finally:
            process.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
