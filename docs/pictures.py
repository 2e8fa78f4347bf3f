"""Makes the pictures of README and documents from a real run: two workers with the tiny model on this machine.

    python docs/pictures.py          # docs/*.png and docs/top.svg, in about four minutes

Debian's chromium must be installed. Deepgram is the development stand-in, and the words are of synthetic speech;
everything else is as in production. `docs/good_week.py` says how the week is made.
"""

import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from good_week import JUST_BEGUN, NOW_RUNNING, TODAY, good_week
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console

from worker.adapters.web.http_server import HealthServer
from worker.app.page.host import fleet_pages
from worker.commands.console import load_settings
from worker.commands.health_port import fetch_health
from worker.commands.top import Seen, screen

HERE = Path(__file__).parent
COLUMNS = 120
COLOURS = 255
WIDE, TALL, PHONE = 1280, 1180, (390, 844)
COSTS_SIZE = (1100, 1442)
WORD = 40
"""The word of the transcript that is clicked."""


def main() -> None:
    """Run the week, and look at the page while the last jobs run and afterwards."""
    with tempfile.TemporaryDirectory() as name, good_week(Path(name)) as week:
        folder = Path(name)
        fallen_back = week.past_days()  # before Playwright, which runs an event loop in this thread
        week.submit(TODAY)
        week.kill_engines()
        week.wait()
        pages = fleet_pages(week.urls, load_settings().cloud, objects=folder / "gcs")
        with (
            HealthServer({}, host="127.0.0.1", port=0, pages=pages) as server,
            sync_playwright() as playwright,
            playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"]) as browser,
        ):
            week.submit(NOW_RUNNING)
            week.kill_engines()
            week.submit(JUST_BEGUN)
            week.wait(running=3, far_chunks=4)
            draw_top(week.urls)
            draw(browser, server.url, "page", (WIDE, TALL))
            draw(browser, server.url, "page-phone", PHONE, scheme="dark")
            week.wait()
            draw(browser, f"{server.url}/jobs/{fallen_back}", "page-job", (WIDE, 900), word=WORD)
            draw(browser, server.url, "page-dark", (WIDE, TALL), scheme="dark")
            html = folder / "costs.html"
            subprocess.run([sys.executable, "-m", "worker", "costs", "--since", "7d", "--html", html], check=True)
            draw(browser, html.as_uri(), "costs", COSTS_SIZE)


def draw_top(urls: Sequence[str]) -> None:
    """Write the screen of `top` as it is now."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO())
    console.print(screen([Seen(url=url, document=fetch_health(url)) for url in urls]))
    console.save_svg(str(HERE / "top.svg"), title="klipstream-worker top")


def draw(
    browser: Browser, url: str, name: str, size: tuple[int, int], *, scheme: str = "light", word: int | None = None
) -> None:
    """Write what the browser shows."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = context.new_page()
    page.goto(url)
    page.locator("h1").wait_for()
    if word is not None:
        page.locator("#words [data-t]").nth(word).click()
        page.locator(".now").wait_for()
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    in_few_colours(picture).save(HERE / f"{name}.png", optimize=True)
    context.close()


def in_few_colours(picture: Image.Image) -> Image.Image:
    """Return the picture in its 255 most frequent colours, which are exact; the rest takes the nearest of them."""
    counted = cast("list[tuple[int, tuple[int, int, int]]]", picture.getcolors(picture.width * picture.height))
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in sorted(counted, reverse=True)[:COLOURS] for part in colour])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main()
