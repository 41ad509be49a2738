"""The page that documents the API, in a real browser: readable by everybody, also on a phone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import (  # type: ignore[import-untyped]  # has none
    Axe,
)

if TYPE_CHECKING:
    from tests.conftest import Seen, Web


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    return shared.start()


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_everybody(site: Web, seen: Seen, width: int, scheme: str) -> None:
    page = seen.page
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of its literals
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{site.url}api/v1/docs")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    folder = os.environ.get("RQ_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"api-docs-{width}-{scheme}.png")


def test_its_links_lead_somewhere(site: Web, seen: Seen) -> None:
    page = seen.page
    page.goto(f"{site.url}api/v1/docs")
    links = page.eval_on_selector_all('main a[href^="#"]', "all => all.map(a => a.hash)")
    assert len(links) > 20
    ids = page.eval_on_selector_all("[id]", "all => all.map(e => `#${e.id}`)")
    assert set(links) <= set(ids)
