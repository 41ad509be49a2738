"""A real browser on a page of somebody else: it can send requests here, and changes nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from rqcore.testing import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from tests.conftest import Web

#: Everything that a page can do to another site without that site's leave.
EVIL = """<!doctype html><title>evil</title>
<form method="post" action="{site}q/test/new_message" target="inside">
<input name="mesg" value='{{"dest": "test"}}'><input name="x_format" value="json"></form>
<iframe name="inside"></iframe><iframe name="too"></iframe>
<form method="post" action="{site}q/test/adminoper" target="too"><input name="down" value="1"></form>
<script>
for (const form of document.forms) form.submit();
const post = (path, type, body) => fetch("{site}" + path, {{
  method: "POST", mode: "no-cors", credentials: "include", headers: {{"Content-Type": type}}, body,
}}).catch(() => 0);
Promise.all([
  post("q/test/new_message", "text/plain", '{{"dest": "test"}}'),
  post("q/test/new_message", "application/x-www-form-urlencoded", 'mesg={{"dest":"test"}}'),
  post("api/v1/queues/test/messages", "text/plain", "{{}}"),
  post("api/v1/queues/test/pause", "text/plain", ""),
  fetch("{site}q.json").then(() => "read", () => "closed"),
]).then((done) => {{ document.title = done.at(-1); }});
</script>"""


class Evil(BaseHTTPRequestHandler):
    """Serves the page, and nothing else."""

    page = ""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.page.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def elsewhere() -> Iterator[HTTPServer]:
    """Another site, on this machine."""
    with HTTPServer(("127.0.0.1", 0), Evil) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(PATIENCE)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_page_of_somebody_else_changes_nothing_and_reads_nothing(
    web: Web, browser: Browser, elsewhere: HTTPServer, name: str
) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    Evil.page = EVIL.format(site=web.url)
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://{name}:{elsewhere.server_address[1]}/")
    page.wait_for_function("document.title !== 'evil'", timeout=PATIENCE * 1000)
    page.wait_for_load_state("networkidle")
    title = page.title()
    context.close()
    assert title == "closed"
    log = (web.rq.directory / "log" / "access.jsonl").read_text().splitlines()
    posts = [line["status"] for line in map(json.loads, log) if line["method"] == "POST"]
    assert posts == [403] * 6
    with web.rq.client("test") as client:
        assert sum(client.call("num_messages").values()) == 0
    assert web.rq.instance.admin_state("test") == "UP"
