"""How each mail looks at 320 and 600 pixels, light and dark: nothing sticks out, everything can be read and pressed."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.mail_pictures import FOLDER, SCHEMES, WIDTHS, look
from tests.mails import NAMES, VARIANTS, Written, every_mail

LEAST = {"text": 13, "target": 44, "contrast": 4.5}

# What is wrong, in words: each element with text of its own is held against the nearest background behind it.
LOOK = """
({text, target, contrast, dark}) => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.body.querySelectorAll('*')) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    const style = getComputedStyle(element), said = element.textContent.trim().slice(0, 40);
    const [a, b] = [light(numbers(style.color)), light(behind(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < contrast) found.push(`${said}: contrast ${((a + 0.05) / (b + 0.05)).toFixed(1)}`);
    if (parseFloat(style.fontSize) < text) found.push(`${said}: ${style.fontSize}`);
    const box = element.getBoundingClientRect();
    if (box.left < 0 || box.right > innerWidth) found.push(`${said}: sticks out`);
  }
  if (document.documentElement.scrollWidth > innerWidth) found.push('the page is wider than the window');
  for (const button of document.querySelectorAll('a.button')) {
    if (button.getBoundingClientRect().height < target) found.push(`${button.textContent}: too small to press`);
  }
  if ((light(behind(document.querySelector('.inside'))) < 0.5) !== dark) found.push('not in the scheme asked for');
  return found;
}
"""


@cache
def mails() -> tuple[Written, ...]:
    with TemporaryDirectory() as folder:
        return tuple(every_mail(Path(folder)))


@pytest.fixture(
    params=[(width, scheme) for scheme in SCHEMES for width in WIDTHS], ids=lambda look: f"{look[0]}-{look[1]}"
)
def page(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    with look(chromium, *request.param) as page:
        yield page


def test_every_mail_can_be_read_and_its_button_pressed(page: Page) -> None:
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    found = {}
    for mail in mails():
        page.set_content(mail.html)
        found[mail.name, mail.language] = page.evaluate(LOOK, {**LEAST, "dark": dark})
    assert {name: said for name, said in found.items() if said} == {}


def test_the_documentation_shows_every_mail_in_less_than_two_megabytes() -> None:
    shown = (FOLDER.parents[1] / "mail.md").read_text()
    names = {name for name in NAMES if name not in VARIANTS}
    assert {path.stem for path in FOLDER.iterdir()} == names
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_000_000
    assert [name for name in names if f"pictures/mails/{name}.webp" not in shown] == []
