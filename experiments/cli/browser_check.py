"""Starts the Chromium that the harness would use, opens a page, and says which one it was."""

from __future__ import annotations

import asyncio

from playwright.async_api import async_playwright

from harness.browser import chromium

DEADLINE_SECONDS = 60


def launch() -> str:
    """Name and version of the browser. Raises BrowserMissingError or Playwright's error where it does not start."""
    return asyncio.run(asyncio.wait_for(_launch(), DEADLINE_SECONDS))


async def _launch() -> str:
    async with async_playwright() as playwright:
        browser = await chromium.launch(playwright)
        try:
            page = await browser.new_page()
            await page.set_content("<title>ready</title>")
            assert await page.title() == "ready"
            return f"Chromium {browser.version}"
        finally:
            await browser.close()
