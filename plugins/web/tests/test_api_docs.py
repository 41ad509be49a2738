"""What documents the API: its page in a real browser, and the commands of docs/web-api.md."""

from __future__ import annotations

import os
import re
import subprocess
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
    shared.rq.queue("test", shared.HELLO)
    return shared.start()


def test_the_commands_of_the_guide_work(site: Web) -> None:
    guide = (Path(__file__).parents[3] / "docs/web-api.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    script = "".join(blocks).replace("http://localhost:3333", site.url.rstrip("/"))
    done = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=script.encode(),
        capture_output=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    told = done.stdout.decode()
    assert told.count('"state": "que"') == 3, "the message that was sent twice was made once"
    assert '"state": "done", "status": "done - fine"' in told
    assert '"num_workers"' not in told
    assert site.rq.ask("test", "config")["num_workers"] == 2
    counts = site.rq.ask("test", "num_messages")
    assert sum(counts.values()) == 4
    assert '"name": "large.bin", "size": 3000000' in told


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
