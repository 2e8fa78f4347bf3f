"""A transcript and its audio in a real browser: as one file, and on the page of a job."""

import base64
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Visit
from tests.support.audio.media import riff_wav
from tests.support.jobs.harness import speech
from worker.adapters.web.rendering import standalone
from worker.adapters.web.views import SpokenParagraph, SpokenWord, Transcript

WORDS = ("Good", "evening", "everyone,", "the", "greenhouse", "controller", "waters", "the", "tomatoes.")


def transcript(audio_src: str, paragraphs: int = 2) -> Transcript:
    return Transcript(
        paragraphs=[
            SpokenParagraph(
                start_seconds=5.0 * number,
                words=[
                    SpokenWord(text=text, start_seconds=5.0 * number + 0.4 * at, confidence=1 - 0.1 * at)
                    for at, text in enumerate(WORDS)
                ],
            )
            for number in range(paragraphs)
        ],
        duration_seconds=5.0 * paragraphs,
        audio_src=audio_src,
        segments=["parakeet", "deepgram"],
    )


def written(folder: Path, audio_src: str = "audio.wav", *, title: str = "greenhouse.wav", paragraphs: int = 2) -> str:
    """Write the page with ten seconds of audio beside it, and return its address."""
    (folder / "audio.wav").write_bytes(riff_wav(speech(10).astype("<i2").tobytes()))
    page = standalone(transcript(audio_src, paragraphs), title=title, lede="18 words.", version="0.1.0")
    (folder / "page.html").write_text(page, encoding="utf-8")
    return (folder / "page.html").as_uri()


def position(page: Page) -> float:
    return float(page.evaluate("document.querySelector('audio').currentTime"))


def test_a_clicked_word_is_played_and_marked(visit: Visit, tmp_path: Path) -> None:
    visit.page.goto(written(tmp_path))
    visit.page.wait_for_function("document.querySelector('audio').readyState >= 1")

    visit.page.locator("[data-t]", has_text="greenhouse").nth(1).click()

    expect(visit.page.locator(".now")).to_be_visible()
    assert position(visit.page) >= 6.6
    assert visit.problems == []


def test_the_keyboard_goes_from_word_to_word(visit: Visit, tmp_path: Path) -> None:
    visit.page.goto(written(tmp_path))
    visit.page.wait_for_function("document.querySelector('audio').readyState >= 1")

    visit.page.locator("#text").focus()
    for _ in range(4):
        visit.page.keyboard.press("ArrowRight")

    expect(visit.page.locator(".now")).to_have_text("greenhouse")


def test_a_search_finds_words_in_a_row_and_goes_through_them(visit: Visit, tmp_path: Path) -> None:
    visit.page.goto(written(tmp_path))

    visit.page.get_by_role("searchbox").fill("the green")
    expect(visit.page.locator("#found")).to_have_text("1 of 2")
    visit.page.keyboard.press("Enter")

    expect(visit.page.locator("#found")).to_have_text("2 of 2")
    expect(visit.page.locator(".hit.here")).to_have_text(["the", "greenhouse"])


def test_words_that_are_less_sure_are_shaded(visit: Visit, tmp_path: Path) -> None:
    visit.page.goto(written(tmp_path))

    assert visit.page.locator("[data-t]", has_text="evening").first.get_attribute("class") is None
    expect(visit.page.locator("[data-t]", has_text="waters").first).to_have_class("c1")
    expect(visit.page.locator("[data-t]", has_text="waters").first).to_have_attribute("title", "40 % sure")


def test_a_hostile_file_name_is_text(visit: Visit, tmp_path: Path) -> None:
    title = "</title><script>alert(1)</script>\u202e<img src=x onerror=alert(1)>.wav"

    visit.page.goto(written(tmp_path, title=title))

    expect(visit.page.get_by_role("heading", level=1)).to_contain_text("</title><script>alert(1)</script>\\u202e<img")
    assert visit.problems == []


def test_a_page_with_its_audio_inside_needs_no_other_file(visit: Visit, tmp_path: Path) -> None:
    audio = base64.b64encode(riff_wav(speech(10).astype("<i2").tobytes())).decode()
    address = written(tmp_path, f"data:audio/wav;base64,{audio}")
    (tmp_path / "audio.wav").unlink()

    visit.page.goto(address)
    visit.page.wait_for_function("document.querySelector('audio').readyState >= 1")

    expect(visit.page.get_by_text("This file needs no network and no other file.")).to_be_visible()
    assert [each for each in visit.addresses if not each.startswith(("data:", address))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_transcript_passes_the_rules_of_accessibility(browser: Browser, tmp_path: Path, scheme: str) -> None:
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light", bypass_csp=True)
    page = context.new_page()
    page.goto(written(tmp_path))

    found = Axe().run(page)
    context.close()

    assert [(each["id"], each["nodes"][0]["html"]) for each in found.response["violations"]] == []


def test_twenty_thousand_words_are_searched_and_marked(visit: Visit, tmp_path: Path) -> None:
    visit.page.goto(written(tmp_path, paragraphs=20_000 // len(WORDS)))

    visit.page.get_by_role("searchbox").fill("tomatoes")

    expect(visit.page.locator("#found")).to_have_text("1 of 2222")
