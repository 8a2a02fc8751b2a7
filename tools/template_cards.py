"""The cards of the template browser: what was said, what was painted, and what the workflow needs, in one picture.

The pictures are painted by the workflow itself, on the miniature.
"""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from PIL import Image

from .template_list import Template

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .comfy_server import ComfyServer

SIDE = 512
LONGEST = 160
"""Characters of what was said, on a card."""
PAGE = """<style>
    * { box-sizing: border-box } body { margin: 0; height: 512px; background: #17181c; color: #f2f4f8;
        font: 19px/1.35 system-ui, sans-serif; display: flex; flex-direction: column; padding: 20px; gap: 14px }
    .said { display: flex; flex-direction: column; gap: 6px }
    .said p { margin: 0; padding: 8px 14px; border-radius: 14px 14px 14px 3px; background: #33405c; align-self: start }
    .said p + p { background: #5c4a72 }
    main { flex: 1; min-height: 0; display: flex; align-items: center; justify-content: center; gap: 14px }
    figure { margin: 0; flex: 0 1 auto; min-width: 0; text-align: center; font-size: 15px; color: #b9bfca }
    figure img { height: 218px; max-width: 100%; object-fit: contain; border-radius: 10px; display: block }
    figure:only-child img { height: 300px }
    main:has(figure:nth-of-type(3)) img { height: auto }
    h1 { margin: 0; font-size: 40px; font-weight: 600; text-align: center }
    i { font-style: normal; font-size: 30px; color: #8fa3d9 }
    footer { display: flex; justify-content: space-between; font-size: 17px; color: #d7dbe3;
        border-top: 1px solid #3a3d45; padding-top: 12px }
    footer b { color: #f2d38b }
</style><div class="said">{said}</div><main>{pictures}</main><footer><span>{models}</span><b>{card}</b></footer>"""


@dataclass
class Painted:
    """What a workflow said and painted."""

    said: list[str] = field(default_factory=list)
    before: bytes | None = None
    caption: str = "before"
    after: list[bytes] = field(default_factory=list)


def words_of(server: ComfyServer, prompt: dict[str, Any]) -> Painted:
    """The words of a workflow's chats and the picture that it starts from; nothing is run."""
    painted = Painted()
    for node_id, node in prompt.items():
        inputs = node["inputs"]
        asked = [inputs.get(name) for name in ("instruction", "message")]
        asked += str(inputs.get("instructions", "")).splitlines()
        if node["class_type"] == "LLMGA_ScenePlan":
            asked.append(inputs["prompt"])
        painted.said += [words for words in asked if words and isinstance(words, str)]
        if node["class_type"] == "LoadImage" and painted.before is None:
            path = server.base / "input" / inputs["image"]
            painted.before = path.read_bytes() if uses_mask(prompt, node_id) else without_mask(path)
    return painted


def paint(server: ComfyServer, prompt: dict[str, Any]) -> Painted:
    """Run a workflow on the miniature: besides its words, the pictures that it saves."""
    entry = server.run(prompt)
    painted = words_of(server, prompt)
    for node_id, node in prompt.items():
        if node["class_type"] == "SaveImage":
            images = entry["outputs"].get(node_id, {}).get("images", ())
            painted.after += [server.view(image) for image in images]
        if node["class_type"] == "LLMGA_CaptionFolder":
            picture = min((server.base / "input" / node["inputs"]["folder"]).glob("*.png"))
            painted.before, painted.caption = without_mask(picture), ""
            painted.said.append(picture.with_suffix(".txt").read_text(encoding="utf-8"))
    return painted


def write_card(page: Page, path: Path, template: Template, painted: Painted) -> int:
    """Write a card as JPEG; its size in bytes. Where there is no picture, it shows the template's title."""
    figures = [(painted.caption, painted.before)] if painted.before else []
    figures += [("after" if painted.before else "", picture) for picture in painted.after]
    shown = "<i>→</i>".join(
        f'<figure><img src="{data_url(picture)}">{caption}</figure>'
        for caption, picture in figures[:3]
        if picture
    )
    shown = shown or f"<h1>{html.escape(template.title[3:])}</h1>"
    said = [*dict.fromkeys(painted.said)][:2]
    lines = [html.escape(shorten(words, LONGEST, placeholder=" …")) for words in said]
    bubbles = "".join(f"<p>{line}</p>" for line in lines)
    page.set_content(
        PAGE.replace("{said}", bubbles)
        .replace("{pictures}", shown)
        .replace("{models}", html.escape(template.models))
        .replace("{card}", template.card)
    )
    page.wait_for_timeout(150)
    page.screenshot(path=path, type="jpeg", quality=82)
    return path.stat().st_size


def uses_mask(prompt: dict[str, Any], node_id: str) -> bool:
    return any([node_id, 1] in node["inputs"].values() for node in prompt.values())


def without_mask(path: Path) -> bytes:
    out = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(out, format="PNG")
    return out.getvalue()


def data_url(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
