"""ComfyUI's page in a headless Chromium, for making the templates and for the browser tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from .comfy_server import PACK_FOLDER, ComfyServer
from .patience import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
# A new user is greeted by the template browser, which would lie over the graph.
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False}
READY = (
    "() => window.app?.vueAppReady && app.graph && app.extensions?.some((one) => one.name === 'llmga.chat')"
    " && !document.querySelector('#splash-loader')?.checkVisibility()"
)
OPEN = """async ([address, name]) => {
    const workflow = await (await fetch(address)).json();
    await app.loadGraphData(workflow, true, true, name, { openSource: "template" });
}"""


@contextlib.contextmanager
def chromium(executable: str) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def new_page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """An empty page in a profile of its own, from which nothing but the server can be reached."""
    own = urlsplit(server.url).netloc

    def guard(route: Route) -> None:
        if urlsplit(route.request.url).netloc == own:
            route.continue_()
        else:
            route.abort()

    context = browser.new_context(viewport={"width": 1600, "height": 1000}, locale="en-US")
    try:
        context.set_default_timeout(PATIENCE * 1000)
        context.route(lambda url: url.startswith("http"), guard)
        yield context.new_page()
    finally:
        context.close()


def visit(page: Page, server: ComfyServer, template: str = "", source: str = PACK_FOLDER) -> None:
    """Bring a page to ComfyUI, this pack's extension loaded; then open a pack's template as the template browser does."""
    server.request("/settings", SETTINGS)
    page.goto(server.url)
    page.wait_for_function(READY)
    if template:
        page.evaluate(OPEN, [f"/api/workflow_templates/{source}/{quote(template)}.json", template])
