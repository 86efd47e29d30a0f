"""Pages in a real browser, without a network, and all that it says while it shows them.

A test module that has `browser` and `open_page` among its names has them as fixtures.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True, kw_only=True)
class Log:
    """What a page asked for and said.

    Attributes:
        requests: the address of each, the page itself included.
        messages: of the console, such as what the security policy refused.
        errors: of scripts.
        dialogs: what a script asked the reader.
    """

    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


OpenPage = Callable[..., AbstractContextManager[tuple[Any, Log]]]


def _missing(reason: str) -> None:
    """Skips, except where tests in a browser are asked for."""
    if os.environ.get("CI") and os.environ.get("OPTBENCH_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One for a module: while it runs, its process cannot start another event loop."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("no playwright here: pip install playwright")
    executable = next((path for name in NAMES if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        if executable is None and not Path(playwright.chromium.executable_path).exists():
            _missing("no Chromium here: playwright install chromium")
        started = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any) -> OpenPage:
    """Opens a file, with options of Playwright's `new_context`, and gives its page and its log."""

    @contextmanager
    def opened(path: Path, **options: Any) -> Iterator[tuple[Any, Log]]:
        log = Log()

        def refuse(dialog: Any) -> None:
            log.dialogs.append(dialog.message)
            dialog.dismiss()

        context = browser.new_context(**{"reduced_motion": "reduce", **options})
        context.set_offline(True)
        context.set_default_timeout(5000)
        page = context.new_page()
        page.on("request", lambda request: log.requests.append(request.url))
        page.on("console", lambda message: log.messages.append(message.text))
        page.on("pageerror", lambda error: log.errors.append(str(error)))
        page.on("dialog", refuse)
        page.goto(path.as_uri())
        try:
            yield page, log
        finally:
            context.close()

    return opened
