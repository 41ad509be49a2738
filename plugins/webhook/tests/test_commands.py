"""``rq webhook``, and what ``rq doctor``, Prometheus and the pages are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import pytest
from markupsafe import Markup
from rqcore_webhook import metrics, pages, replay
from rqcore_webhook.checks import checks
from rqcore_webhook.health import Files, Health
from rqcore_webhook.options import parse_options, read_options
from rqcore_webhook.outbox import Entry, Outbox
from rqcore_webhook.signing import key_of, new_secret

from rqcore.instance import Instance
from rqcore.testing import PATIENCE, RunningInstance, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from tests.conftest import Receiver, Rq

CHROMIUM = "/usr/bin/chromium"
NASTY = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def options(receiver: Receiver) -> dict[str, Any]:
    return {"endpoints": {
        "ops": {
            "url": receiver.url("/ops?token=geheim"), "format": "standard",
            "secret_file": "config/ops.secret", "events": ["message.done"], "queues": ["work"],
        },
        "off": {"url": receiver.url("/off"), "events": ["message.err"], "queues": ["work"]},
    }}  # fmt: skip


Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def call(rq: Rq) -> Call:
    """Runs ``rq webhook`` with these words; it must end with this status."""

    def run(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "rqcore_cli", "--dir", str(rq.directory), "webhook", *words],
            capture_output=True, text=True, check=False, env=rq.instance.environ,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == status, done
        return done

    return run


@pytest.mark.process
def test_a_secret_is_made_and_changed(rq: Rq, call: Call, receiver: Receiver) -> None:
    assert key_of(call("secret").stdout.strip())
    file = rq.directory / "config/ops.secret"
    call("secret", "--new", status=2)
    call("secret", "off", "--new", status=4)
    call("secret", "nobody", "--new", status=3)
    first = call("secret", "ops", "--new").stdout.strip()
    assert file.read_text() == f"{first}\n"
    assert os.stat(file).st_mode & 0o777 == 0o600
    second = call("secret", "ops", "--new").stdout.strip()
    assert file.read_text() == f"{second}\n{first}\n"
    call("test", "ops")
    got = receiver.at("/ops?token=geheim")[-1]
    assert got.signed_by(first)
    assert got.signed_by(second)
    assert got.payload["type"] == "webhook.test"
    call("secret", "ops", "--drop-old")
    assert file.read_text() == f"{second}\n"


@pytest.mark.process
def test_a_test_shows_what_comes_back(call: Call, receiver: Receiver) -> None:
    receiver.answer("/try", {"status": 500, "body": b"\x1b[31mno\nroom"})
    failed = call("test", receiver.url("/try"), status=1)
    assert "answers 500 Internal Server Error" in failed.stdout
    assert "  room" in failed.stdout.splitlines()
    assert "\x1b" not in failed.stdout
    found = json.loads(call("test", receiver.url("/try"), "--json").stdout)
    assert (found["status"], found["error"], found["excerpt"]) == (200, "", "thank you")
    assert "there are: ops, off" in call("test", "nobody", status=3).stderr
    assert "does not begin with http" in call("test", "ftp://x/", status=4).stderr


@pytest.mark.process
def test_disabled_told_enabled_and_replayed(rq: Rq, call: Call, receiver: Receiver) -> None:
    before = len(receiver.at("/off"))
    call("disable", "off", "--reason", "moving house")
    assert "off is disabled: moving house" in call("ls").stdout
    msg_id = rq.instance.send("work", param1="err")
    rq.instance.until("work", msg_id)
    rq.empty()
    [row] = [r for r in json.loads(call("ls", "--json").stdout) if r["target"] == "off"]
    assert (row["status"], row["missed"]) == ("disabled", 1)
    enabled = call("enable", "off").stderr
    assert "1 event was not kept" in enabled
    assert "rq webhook replay --endpoint off --since 1h" in enabled
    assert "was not disabled" in call("enable", "off").stderr
    look = json.loads(
        call("replay", "--since", "1h", "--endpoint", "off", "--dry-run", "--json").stdout
    )
    about = rq.instance.message("work", msg_id)["full_id"]
    assert look == {"sent": False, "webhooks": [
        {"target": "off", "event": "message.err", "about": about, "why": "was not queued"},
    ]}  # fmt: skip
    assert len(receiver.at("/off")) == before
    call("replay", "--since", "1h", "--endpoint", "off", status=1)  # nobody is there to say yes
    assert (
        "1 webhook will be sent"
        in call("replay", "--since", "1h", "--endpoint", "off", "--yes").stderr
    )
    got = receiver.until("/off", before + 1)[before]
    assert got.payload["msg_id"] == about
    rq.empty()
    assert "0 webhooks" in call("replay", "--since", "1h", "--endpoint", "off", "--dry-run").stderr


@pytest.mark.process
def test_what_failed_is_sent_again_with_its_id(rq: Rq, call: Call, receiver: Receiver) -> None:
    path, before = "/ops?token=geheim", len(receiver.at("/ops?token=geheim"))
    (rq.directory / "config/ops.secret").write_text(f"{new_secret()}\n")
    headers = {"webhook-delivery": "abort-message"}
    receiver.answer(path, {"status": 400, "headers": headers})
    msg_id = rq.instance.send("work")
    first = receiver.until(path, before + 1)[before]
    about = rq.instance.message("work", msg_id)["full_id"]
    [item] = rq.webhooks(about)
    rq.instance.until("webhook", item["msg_id"], "err")
    table = call("replay", "--since", "1h", "--endpoint", "ops", "--dry-run").stdout
    assert about in table
    assert "failed" in table
    call("replay", "--since", "1h", "--endpoint", "ops", "--yes")
    again = receiver.until(path, before + 2)[before + 1]
    assert again.headers["webhook-id"] == first.headers["webhook-id"]
    assert again.body == first.body
    rq.instance.until("webhook", item["msg_id"], "done")
    call("replay", "--since", "1h", "--endpoint", "ops", "--delivered", "--yes")
    assert receiver.until(path, before + 3)[-1].headers["webhook-id"] == first.headers["webhook-id"]
    assert "is no time" in call("replay", "--since", "often", status=2).stderr


# What others are told


def test_checks_name_what_is_wrong_and_the_remedy(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(new_secret())
    secret.chmod(0o644)
    tmp_path.chmod(0o755)
    config = tmp_path / "config" / "config.json"
    config.parent.mkdir()
    config.touch()
    options = parse_options({"endpoints": {
        "good": {"url": "https://a/", "headers": {"Authorization": "Bearer x"}},
        "gone": {"url": "https://b/"}, "weak": {"url": "https://c/"},
        "bare": {"url": "https://d/", "format": "standard"},
        "open": {"url": "https://e/", "format": "standard", "secret_file": str(secret)},
        "same": {"url": "https://g/", "format": "standard", "secret_file": "secret"},
        "lost": {"url": "https://f/", "format": "standard", "secret_file": "nowhere"},
    }}, f"{tmp_path}/config/config.json")  # fmt: skip
    files, outbox = Files(str(tmp_path)), Outbox(str(tmp_path))
    files.disable("gone", "it is old", "me")
    files.write({
        "good": Health(last_success=1.0),
        "weak": Health(failures=3, failing_since=time() - 90, last_error="no room"),
        "http://10.0.0.1:80": Health(refused=True, last_failure=time(), last_error="not public"),
    })  # fmt: skip
    outbox.make()
    Path(outbox.folder, f"{1:020d}.a.go").write_bytes(Entry("a", 1, "q", "1", ()).to_json())
    found = {check.name: check for check in checks(str(tmp_path), options)}
    assert {name: check.level for name, check in found.items()} == {
        "webhook good": "ok", "webhook gone": "critical", "webhook weak": "warning",
        "webhook bare": "ok", "webhook same": "ok", "webhook http://10.0.0.1:80": "warning",
        "webhook open": "ok", "webhook lost": "ok", "webhook bare, secret": "warning",
        "secret secret": "warning", "secret nowhere": "critical", "secret config/config.json": "warning",
        "webhook outbox": "critical",
    }  # fmt: skip
    assert "rq webhook enable gone" in found["webhook gone"].remedy
    assert found["webhook weak"].text == "fails for 90 s: no room"
    assert "messages ask for it" in found["webhook http://10.0.0.1:80"].remedy
    assert found["secret nowhere"].remedy == "correct secret_file"
    for name, file in (("secret secret", secret), ("secret config/config.json", config)):
        fix = found[name].fix
        assert fix is not None
        assert fix() == f"{file} is 600 now"
        assert file.stat().st_mode & 0o777 == 0o600


def test_what_a_replay_has_queued_is_not_found_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = {"msg_id": "20260301.0800.00.000.1", "dest": "q", "status": "err - no"}
    monkeypatch.setattr(
        replay, "_listed", lambda _ask, _queue, state, _since: [item] if state == "err" else []
    )
    given = {"endpoints": {"a": {"url": "https://a/"}, "b": {"url": "https://b/"}}}
    options = parse_options(given, "config.json")
    Outbox(str(tmp_path)).make()

    def found(endpoint: str) -> list[replay.Found]:
        return list(replay.missed(
            lambda *_: None, str(tmp_path), "http://h/", options, ["q"], 0.0, endpoint
        ))  # fmt: skip

    [first] = found("a")
    first.again()
    assert found("a") == []
    assert [one.target for one in found("")] == ["b"]


def test_metrics_count_what_was_tried(tmp_path: Path) -> None:
    options = parse_options({"endpoints": {"ops": {"url": "https://a/"}}}, f"{tmp_path}/c/c")
    counted = {"success": 3, "failure": 2, "throttled": 1, "refused": 0}
    Files(str(tmp_path)).write({
        "ops": Health(last_success=5.0, last_ms=250.0, attempts=counted),
        "http://a:80": Health(last_success=time(), attempts=counted),
        "http://b:80": Health(last_success=time(), attempts=counted),
    })  # fmt: skip
    found = {family.name: family for family in metrics.families(str(tmp_path), options)}
    attempts = found["rqcore_webhook_attempts_total"]
    assert attempts.kind == "counter"
    assert ({"endpoint": "ops", "result": "success"}, 3.0) in attempts.samples
    assert ({"endpoint": "", "result": "success"}, 6.0) in attempts.samples
    assert found["rqcore_webhook_last_duration_seconds"].samples == [({"endpoint": "ops"}, 0.25)]
    assert found["rqcore_webhook_endpoint_up"].samples == [({"endpoint": "ops"}, 1.0)]


class FakeSite:
    def __init__(self, directory: Path) -> None:
        self.instance = Instance(directory)

    def url(self, path: str = "") -> str:
        return f"/root/{path}"

    def page(self, request: object, title: str, content: object, status: int = 200) -> Any:
        raise NotImplementedError


def test_what_others_wrote_is_text(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    config = {"plugins": {"webhook": {"endpoints": {"ops": {"url": "https://u:pw@h/p?t=geheim"}}}}}
    (tmp_path / "config/config.json").write_text(json.dumps(config))
    files = Files(str(tmp_path))
    site: Any = FakeSite(tmp_path)
    assert pages.panels(site) == []
    files.write({"ops": Health(failures=20, failing_since=1.0, last_error=NASTY)})
    [panel] = pages.panels(site)
    assert Markup.escape(NASTY) in panel.content
    files.disable("ops", NASTY, "me")
    [panel] = pages.panels(site)
    shown = pages._page(site)
    for text in (panel.content, shown):
        assert NASTY not in text
        assert Markup.escape(NASTY) in text
    assert "geheim" not in shown
    assert "pw@" not in shown
    assert read_options(str(tmp_path)).endpoints["ops"].url.endswith("geheim")
    message = tmp_path / "queue/q/done/1"
    (message / "plugins/webhook").mkdir(parents=True)
    lines = ["nonsense", "[]", json.dumps({"event": NASTY, "url": NASTY, "full_id": NASTY})]
    (message / "plugins/webhook/sent.jsonl").write_text("\n".join(lines))
    [panel] = pages.message_panels(site, {"queue": "q", "path": str(message)})
    assert NASTY not in panel.content
    assert "it was removed since" in panel.content


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE * 1000)
    # Its processes come and go in their own time; none of them is a leftover of a test.
    mark = os.environ.pop("RQCORE_TEST_SESSION", None)
    try:
        playwright = sync_playwright().start()
        made = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
    finally:
        if mark is not None:
            os.environ["RQCORE_TEST_SESSION"] = mark
    yield made
    made.close()
    playwright.stop()


@pytest.mark.browser
def test_pages_show_endpoints_and_attempts(
    browser: Browser, rq_instance: RunningInstance, receiver: Receiver
) -> None:
    from playwright.sync_api import expect

    port = free_port()
    rq_instance.use_plugins("cli", "webhook", "web")
    endpoints = {
        "team-with-a-rather-long-name": {
            "url": receiver.url(f"/{'long' * 30}"),
            "format": "standard",
            "events": ["message.err"],
        }
    }
    rq_instance.configure(port=port, plugins={"webhook": {"endpoints": endpoints}})
    rq_instance.queue("work", "#!/bin/sh\necho done >&3\n")
    rq_instance.start()
    receiver.answer("/page", {"status": 500, "body": b"no room <b>here</b>"})
    message = rq_instance.until(
        "work", rq_instance.send("work", post_run_webhook=[receiver.url("/page")])
    )
    receiver.until("/page", 2)
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme="dark")
    page, problems = context.new_page(), list[str]()
    page.on("console", lambda said: problems.append(said.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    base = f"http://127.0.0.1:{port}/"
    for path, text in (
        ("-/webhook/", "team-with-a-rather-long-name"),
        (f"q/work/{message['msg_id']}", "answered 200"),
    ):
        page.goto(f"{base}{path}")
        expect(page.locator("main")).to_contain_text(text)
        for width in (360, 1280):
            page.set_viewport_size({"width": width, "height": 740})
            assert page.evaluate("document.documentElement.scrollWidth") == width
    page.locator("main a:has(.msg-id)", has_text="2").last.click()
    expect(page.locator("main")).to_contain_text("no room <b>here</b>")
    expect(page.locator("main")).to_contain_text(f"About work/{message['msg_id']}")
    assert problems == []
    context.close()
