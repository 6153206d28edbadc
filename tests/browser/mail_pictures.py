"""Pictures of every mail: ``python -m tests.browser.mail_pictures`` (``make mail-pictures``), with $CHROMIUM.

One sheet a mail goes into docs/pictures/mails/: at 600 and at 320 pixels, light and dark, English above German.
"""

import base64
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

from settings import ROOT
from tests.mails import LANGUAGES, VARIANTS, Written, every_mail

FOLDER = ROOT / "docs" / "pictures" / "mails"
WIDTHS = (600, 320)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

SCALE, QUALITY, GAP = 0.6, 0.33, 16

# Chromium takes pictures as PNG; a canvas of it writes WebP, which is a quarter of that.
SHEET = """
async ({rows, scale, quality, gap}) => {
  const image = async data => {
    const found = new Image();
    found.src = 'data:image/png;base64,' + data;
    await found.decode();
    return found;
  };
  const drawn = await Promise.all(rows.map(row => Promise.all(row.map(image))));
  const heights = drawn.map(row => Math.max(...row.map(one => one.height)));
  const width = Math.max(...drawn.map(row => row.reduce((sum, one) => sum + one.width + gap, gap)));
  const canvas = document.createElement('canvas');
  canvas.width = width * scale;
  canvas.height = (heights.reduce((sum, one) => sum + one + gap, gap)) * scale;
  const pen = canvas.getContext('2d');
  pen.imageSmoothingQuality = 'high';
  pen.fillStyle = '#8a8a8a';
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.scale(scale, scale);
  let top = gap;
  drawn.forEach((row, number) => {
    let left = gap;
    row.forEach(one => { pen.drawImage(one, left, top); left += one.width + gap; });
    top += heights[number] + gap;
  });
  return canvas.toDataURL('image/webp', quality).split(',')[1];
}
"""


@contextmanager
def look(browser: Browser, width: int, scheme: Literal["light", "dark"]) -> Iterator[Page]:
    """A page to put mails into, as a mail program shows them: nothing runs, nothing is fetched."""
    page = browser.new_page(viewport={"width": width, "height": 400}, color_scheme=scheme)
    page.set_default_timeout(60_000)
    page.route("**/*", lambda route: route.abort())
    yield page
    page.close()


def shots(browser: Browser, mails: list[Written]) -> dict[tuple[str, str], list[bytes]]:
    """The pictures of each mail, by its name and language: light and dark, each wide and narrow."""
    taken: dict[tuple[str, str], list[bytes]] = {(mail.name, mail.language): [] for mail in mails}
    for scheme, width in product(SCHEMES, WIDTHS):
        with look(browser, width, scheme) as page:
            for mail in mails:
                page.set_content(mail.html)
                taken[mail.name, mail.language].append(page.screenshot(full_page=True))
    return taken


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        mails = [mail for mail in every_mail(Path(folder)) if mail.name not in VARIANTS]
        taken = shots(browser, mails)
        page = browser.new_page()
        for name in dict.fromkeys(mail.name for mail in mails):
            rows = [[base64.b64encode(shot).decode() for shot in taken[name, language]] for language in LANGUAGES]
            sheet = page.evaluate(SHEET, {"rows": rows, "scale": SCALE, "quality": QUALITY, "gap": GAP})
            (FOLDER / f"{name}.webp").write_bytes(base64.b64decode(sheet))
        browser.close()
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    sys.stdout.write(f"{len(list(FOLDER.iterdir()))} sheets, {size / 1e6:.1f} MB, are in {FOLDER}\n")


if __name__ == "__main__":
    main()
