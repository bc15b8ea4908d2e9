"""Takes a picture of the web page in which the sample clip has been judged, by default docs/page.png."""

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image

from pipeline.sampleclip import write_sample
from tests.browser import chromium
from tests.server import ROOT, served

LOADED = """video => new Promise((resolve) => {
  const look = () => (video.seeking || video.readyState < 4 ? setTimeout(look, 50) : resolve());
  look();
})"""


def main() -> None:
    """Serve, judge, look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "docs" / "page.png")
    parser.add_argument("--dark", action="store_true", help="the dark colours")
    parser.add_argument("--faces", type=int, default=1, help="faces of the sample clip")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=900, help="0 takes all of the page")
    parser.add_argument("--start", action="store_true", help="before a clip is chosen")
    parser.add_argument("--print", action="store_true", help="the report, as PDF")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, served(provider="cpu") as url, chromium() as browser:
        page = browser.new_page(
            viewport={"width": given.width, "height": given.height or 900},
            color_scheme="dark" if given.dark else "light",
            reduced_motion="reduce",
        )
        page.goto(url)
        page.wait_for_load_state("networkidle")
        if not given.start:
            page.set_input_files("#file", write_sample(Path(scratch) / "sample.mp4", faces=given.faces))
            page.locator("#verdict-words").wait_for()
            page.locator(".moment").nth(2).click()
            page.locator("video").evaluate(LOADED)
            page.locator("#same-bytes:has-text('finds')").wait_for()
            page.mouse.move(0, 0)
            page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
            page.wait_for_timeout(2000)  # until the browser's own sign of loading has faded
        if given.print:
            given.out.write_bytes(page.pdf(format="A4"))
        else:
            taken = Image.open(io.BytesIO(page.screenshot(full_page=not given.height)))
            taken.convert("RGB").quantize(256).save(given.out, optimize=True)


if __name__ == "__main__":
    main()
