"""The box editor of LLMGA Scene Plan in ComfyUI's own page: what is dragged is what the prompt holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tools.comfy_server import ComfyServer
from tools.frontend import new_page, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PLAN = {
    "format": "llmga-scene",
    "version": 1,
    "prompt": "",
    "objects": [
        {"name": "a red fox", "box": [0.1, 0.1, 0.3, 0.3], "descriptions": ["old"]},
        {"name": "an owl", "box": [0.6, 0.6, 0.3, 0.3], "descriptions": []},
    ],
    "background": "<img src=x onerror=alert(1)>",
    "negative": "",
}
# Outside of the graph, whose scale and place are the window's own business.
ADD = """(plan) => {
    const node = LiteGraph.createNode("LLMGA_ScenePlan");
    app.graph.add(node);
    node.widgets.find((one) => one.name === "plan").value = plan;
    const { element } = node.llmgaBoxes;
    Object.assign(element.style, { position: "fixed", left: "40px", top: "80px", width: "400px", zIndex: 9999 });
    element.dataset.test = "boxes";
    document.body.append(element);
    node.llmgaBoxes.refresh();
    window.planner = node;
}"""
VALUE = "window.planner.widgets.find((one) => one.name === 'plan').value"


def plan_of(page: Page) -> dict[str, Any]:
    return json.loads(page.evaluate(VALUE))


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From one place to another, in parts of the picture; which is square, in the middle of the canvas."""
    box: Any = page.locator("[data-test=boxes] canvas").bounding_box()
    side = min(box["width"], box["height"])
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    page.mouse.move(left + start[0] * side, top + start[1] * side)
    page.mouse.down()
    page.mouse.move(left + end[0] * side, top + end[1] * side, steps=4)
    page.mouse.up()


def test_boxes_are_dragged_renamed_and_removed(browser: Browser, server: ComfyServer) -> None:
    with new_page(browser, server) as page:
        visit(page, server)
        page.evaluate(ADD, json.dumps(PLAN))
        drag(page, (0.2, 0.2), (0.4, 0.3))
        x, y, width, height = plan_of(page)["objects"][0]["box"]
        assert abs(x - 0.3) < 0.02 and abs(y - 0.2) < 0.02 and (width, height) == (0.3, 0.3)
        drag(page, (0.9, 0.9), (0.7, 0.95))
        x, y, width, height = plan_of(page)["objects"][1]["box"]
        assert (x, y) == (0.6, 0.6) and abs(width - 0.1) < 0.02 and abs(height - 0.35) < 0.02
        name = page.locator("[data-test=boxes] input")
        name.fill("a <b>snowy</b>   owl")
        name.press("Enter")
        name.blur()
        assert [one["name"] for one in plan_of(page)["objects"]] == ["a red fox", "a <b>snowy</b> owl"]
        buttons = page.locator("[data-test=boxes] button")
        buttons.get_by_text("Add").click()
        assert len(plan_of(page)["objects"]) == 3
        buttons.get_by_text("Remove").click()
        assert [one["name"] for one in plan_of(page)["objects"]] == ["a red fox", "an object"]
        assert plan_of(page)["background"] == PLAN["background"], "what the editor does not show is kept"
        prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
        (node,) = (one for one in prompt.values() if one["class_type"] == "LLMGA_ScenePlan")
        assert json.loads(node["inputs"]["plan"]) == plan_of(page)
        assert "llmga_boxes" not in node["inputs"]


def test_a_plan_of_a_run_is_kept_when_asked(browser: Browser, server: ComfyServer) -> None:
    with new_page(browser, server) as page:
        visit(page, server)
        page.evaluate(ADD, "")
        page.evaluate("(plan) => window.planner.onExecuted({ llmga_scene: [plan] })", json.dumps(PLAN))
        assert page.evaluate(VALUE) == "", "a run does not change the widget"
        page.locator("[data-test=boxes] button").get_by_text("Keep").click()
        assert plan_of(page) == PLAN
        page.locator("[data-test=boxes] button").get_by_text("Clear").click()
        assert page.evaluate(VALUE) == ""
        page.evaluate(f"() => {{ {VALUE} = 'a fox in words'; window.planner.llmgaBoxes.refresh(); }}")
        drag(page, (0.2, 0.2), (0.4, 0.3))
        assert page.evaluate(VALUE) == "a fox in words", "what is no plan is left alone"
