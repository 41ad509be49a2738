"""What the tests of the site share: a real instance with the web service, curl, and a real browser."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from rqcore.testing import PATIENCE, RunningInstance, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with a browser come last: its driver leaves an event loop that counts as running.

    ``asyncio.run`` refuses to work beside it, in whatever test comes after.
    """
    with_browser = {item for item in items if "browser" in getattr(item, "fixturenames", ())}
    for item in with_browser:
        item.add_marker(pytest.mark.browser)
    for item in items:
        if {"web", "shared"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.process)
    items.sort(key=with_browser.__contains__)


@dataclass
class Answer:
    """What curl was answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Web:
    """A running instance with the web service on a free port of the loopback address."""

    rq: RunningInstance
    port: int
    root: str = "/"
    auth: str = ""

    #: A script that ends well, and says what it was given.
    HELLO: ClassVar = (
        '#!/bin/sh\necho "hello $RQ_PARAM1"\necho "run greeting" >&3\necho "done fine" >&3\n'
    )
    #: A script that fails.
    FAILS: ClassVar = '#!/bin/sh\necho "err ${RQ_PARAM1:-it broke}" >&3\n'
    #: A script that waits until the fifo in param1 is opened.
    WAITS: ClassVar = (
        '#!/bin/sh\necho "run waiting" >&3\necho ready\ncat "$RQ_PARAM1"\necho "done waited" >&3\n'
    )

    @property
    def url(self) -> str:
        """The site's URL; ends with a slash."""
        return f"http://127.0.0.1:{self.port}{self.root}"

    def start(self) -> Web:
        """Start the instance; the web service is then ready, or has failed."""
        self.rq.start()
        return self

    def curl(self, path: str, *options: str, stdin: bytes = b"") -> Answer:
        """Ask with the real curl: ``path`` is below the site's root."""
        command = ["curl", "-sS", "-D", "-", "--max-time", "60", *options, f"{self.url}{path}"]
        done = subprocess.run(
            command, input=stdin, capture_output=True, timeout=PATIENCE * 3, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr.decode()}\n{self.rq.log_text()}"
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100") or head.endswith(b"established"):
            head, _, body = body.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return Answer(int(lines[0].split()[1]), headers, body)

    def pid(self) -> int:
        """The web service's process."""
        for child in self.rq.manager.ask("describe")["children"]:
            if (child["kind"], child["name"]) == ("service", "web"):
                return int(child["pid"])
        raise AssertionError("there is no web service")


def make_web(rq: RunningInstance, **settings: Any) -> Web:
    """The instance with the web service, not started yet; ``settings`` go into the main config."""
    rq.use_plugins("cli", "web")
    port = free_port()
    rq.configure(port=port, **settings)
    return Web(rq, port, root=settings.get("relative_root", "/"))


@pytest.fixture
def web(rq_instance: RunningInstance) -> Web:
    """An instance with the web service, to be given queues and started."""
    return make_web(rq_instance)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """The same, shared by the tests of a module: its own fixture gives it queues and starts it.

    What still runs when the module is over runs for nobody, and is not waited for.
    """
    made = make_web(RunningInstance(tmp_path_factory.mktemp("shared") / "rq"), stop_grace=0)
    yield made
    made.rq.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, one for all tests."""
    from playwright.sync_api import expect, sync_playwright

    program = next(
        (
            path
            for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser")
            if Path(path).exists()
        ),
        "",
    )
    if not program:
        pytest.skip("there is no Chromium; Debian's package is chromium")
    expect.set_options(timeout=PATIENCE * 1000)
    # Its processes come and go in their own time; none of them is a leftover of a test.
    mark = os.environ.pop("RQCORE_TEST_SESSION", None)
    try:
        playwright = sync_playwright().start()
        made = playwright.chromium.launch(
            executable_path=program,
            args=[
                "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
            ],
        )  # fmt: skip
    finally:
        if mark is not None:
            os.environ["RQCORE_TEST_SESSION"] = mark
    yield made
    made.close()
    playwright.stop()


@dataclass
class Seen:
    """A page and everything that went wrong in it."""

    page: Page
    problems: list[str] = field(default_factory=list)
    #: What a test itself brings about, such as a service that is gone: parts of what is then told.
    expected: list[str] = field(default_factory=list)

    def watch(self) -> Seen:
        """From now on note errors, also of the content security policy."""
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on(
            "console",
            lambda said: (
                self.problems.append(f"{said.type}: {said.text}")
                if said.type in ("error", "warning")
                else None
            ),
        )
        return self


@pytest.fixture
def seen(browser: Browser) -> Iterator[Seen]:
    """A page of the browser in a context of its own; the test fails when anything went wrong in it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE * 1000)
    made = Seen(context.new_page()).watch()
    yield made
    context.close()
    problems = [told for told in made.problems if not any(part in told for part in made.expected)]
    assert not problems, problems
