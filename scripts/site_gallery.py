"""Photographs ten pages of the rich world into one sheet: `python scripts/site_gallery.py docs/images/sites.png`."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

from PIL import Image

from harness.browser import BrowserPool, Tab
from harness.sites import SiteServer, make_site, scout_answers
from harness.sites.rich.factory import LOOKS

COLUMNS, WIDTH, HEIGHT, GAP = 5, 400, 400, 10
# Kind, difficulty, what to do before the picture; the first site of the kind with that look is taken.
SHOTS = (
    ("passport", 1, "paper", "fill"),
    ("visa", 3, "civic", "list"),
    ("donation", 1, "soft", "fill"),
    ("parcel", 1, "bold", "fill"),
    ("library", 3, "dusk", "open"),
    ("tax_return", 2, "civic", "open"),
    ("account_settings", 2, "paper", "none"),
    ("conference_talk", 2, "soft", "none"),
    ("tenancy", 3, "bold", "calendar"),
    ("vet", 3, "soft", "fill"),
)
CLOSE = "document.querySelectorAll('[data-obstacle] button').forEach((button) => button.click())"
PREPARE = {
    "none": "0",
    "fill": CLOSE,
    "open": f"{CLOSE}; document.querySelectorAll('.opener button')[0]?.click()",
    "calendar": f"{CLOSE}; document.querySelector('.picker .icon')?.click()",
    "list": f"""{CLOSE}; (() => {{
        const input = document.querySelector('[role=combobox]');
        if (!input) return;
        input.value = input.nextElementSibling.children[0].textContent.slice(0, 1);
        input.dispatchEvent(new Event('input', {{ bubbles: true }}));
    }})()""",
}


def site_key(kind: str, difficulty: int, look: str) -> str:
    """The first site with this look that is drawn for it."""
    assert look in LOOKS
    keys = (f"rich.{kind}.d{difficulty}.L{1 + seed % 6}.s{seed}" for seed in range(500))
    return next(key for key in keys if make_site(key).behaviour.look == look)


async def photograph(tab: Tab, server: SiteServer, number: int) -> Image.Image:
    """One page, answered half, at half its size."""
    kind, difficulty, look, prepare = SHOTS[number]
    key = site_key(kind, difficulty, look)
    await tab.page.set_viewport_size({"width": 2 * WIDTH, "height": 2 * HEIGHT})
    await tab.goto(server.start_url(key, f"shot{number}"))
    fields = [
        item for item in make_site(key).pages[0].fields if item.control_kind in ("text", "email", "number", "date")
    ]
    answers = scout_answers(make_site(key))
    for item in fields[: 0 if prepare == "none" else 4]:
        fill = "([name, value]) => { const [field] = document.getElementsByName(name); field.value = value; "
        fill += "field.dispatchEvent(new Event('input', { bubbles: true })); }"
        await tab.page.evaluate(fill, [item.name, answers[item.name][0]])
    await tab.page.evaluate(PREPARE[prepare])
    picture = Image.open(io.BytesIO(await tab.page.screenshot())).convert("RGB")
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


async def take_all() -> list[Image.Image]:
    """Take all pictures."""
    pool, server = BrowserPool(), SiteServer()
    await server.start()
    pictures = []
    for number in range(len(SHOTS)):
        async with pool.tab("context") as tab:
            pictures.append(await photograph(tab, server, number))
    await pool.close()
    await server.stop()
    return pictures


def write_sheet(pictures: list[Image.Image], path: Path) -> None:
    """Lay the pictures out in one file of few colours."""
    rows = -(-len(pictures) // COLUMNS)
    size = (COLUMNS * (WIDTH + GAP) + GAP, rows * (HEIGHT + GAP) + GAP)
    sheet = Image.new("RGB", size, "#8b94a3")
    for at, picture in enumerate(pictures):
        place = (GAP + at % COLUMNS * (WIDTH + GAP), GAP + at // COLUMNS * (HEIGHT + GAP))
        sheet.paste(picture, place)
    sheet.quantize(160, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"wrote {path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    write_sheet(asyncio.run(take_all()), Path(sys.argv[1]))
