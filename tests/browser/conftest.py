"""A real Chromium for the tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

_CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
_CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Without a path, playwright looks for the browser that `playwright install` downloads.
        path = _CHROMIUM if Path(_CHROMIUM).exists() else None
        if path is None and not Path(playwright.chromium.executable_path).exists() and "CI" not in os.environ:
            pytest.skip("There is no Chromium. Name one with CHROMIUM, or run `playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=path, args=_CHROMIUM_ARGS, headless=True)
        yield browser
        browser.close()
