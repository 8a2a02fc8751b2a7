"""What the demo leaves behind for a person: a contact sheet, a transcript and one HTML page."""

from __future__ import annotations

import base64
import html
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TILE = 320
CAPTION = 150


@dataclass
class Chapter:
    """One workflow of the story: what was said in it and what was painted."""

    name: str
    about: str
    seconds: float
    texts: list[tuple[str, str]] = field(default_factory=list)  # (node title, what it showed)
    pictures: list[Path] = field(default_factory=list)


def write_report(folder: Path, intro: str, chapters: list[Chapter]) -> Path:
    """Write ``contact_sheet.png``, ``transcript.md`` and ``report.html``; returns the page."""
    contact_sheet(chapters).save(folder / "contact_sheet.png")
    (folder / "transcript.md").write_text(transcript(intro, chapters), encoding="utf-8")
    page = folder / "report.html"
    page.write_text(report(intro, chapters), encoding="utf-8")
    return page


def contact_sheet(chapters: list[Chapter]) -> Image.Image:
    """Every picture with its workflow's name and the prompt it was painted from, three in a row."""
    tiles = [(chapter, path) for chapter in chapters for path in chapter.pictures]
    columns = min(3, max(1, len(tiles)))
    rows = max(1, -(-len(tiles) // columns))
    sheet = Image.new("RGB", (columns * (TILE + 16) + 16, rows * (TILE + CAPTION + 16) + 16), "#1b1b1f")
    draw = ImageDraw.Draw(sheet)
    title, small = ImageFont.load_default(size=18), ImageFont.load_default(size=13)
    for index, (chapter, path) in enumerate(tiles):
        left, top = 16 + (index % columns) * (TILE + 16), 16 + (index // columns) * (TILE + CAPTION + 16)
        with Image.open(path) as picture:
            shown = picture.convert("RGB")
            shown = shown.resize(
                (TILE, TILE), Image.Resampling.NEAREST if shown.width < TILE else Image.Resampling.LANCZOS
            )
        sheet.paste(shown, (left, top))
        draw.text((left, top + TILE + 6), chapter.name, fill="#ffffff", font=title)
        prompt = dict(chapter.texts).get("Prompt", "")
        lines = textwrap.wrap(prompt, 46)
        lines = [*lines[:6], "…"] if len(lines) > 7 else lines
        draw.multiline_text((left, top + TILE + 32), "\n".join(lines), fill="#c8c8d0", font=small)
    return sheet


def transcript(intro: str, chapters: list[Chapter]) -> str:
    parts = ["# Transcript", intro]
    for chapter in chapters:
        parts.append(f"## {chapter.name} ({chapter.seconds:.1f} s)\n\n{chapter.about}")
        for title, text in chapter.texts:
            quoted = "\n".join(f"    {line}" for line in text.splitlines())
            parts.append(f"**{title}**\n\n{quoted}")
    return "\n\n".join(parts) + "\n"


def report(intro: str, chapters: list[Chapter]) -> str:
    """One self-contained page; every text of a model is escaped."""
    sections = "\n".join(_section(chapter) for chapter in chapters)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ComfyUI-LLMGA demo</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fafafa; }}
section {{ display: grid; grid-template-columns: 1fr 20rem; gap: 0 2rem; border-top: 1px solid #ccc; padding: 1rem 0; }}
section > h2, section > p {{ grid-column: 1 / -1; margin: .3rem 0; }}
img {{ width: 100%; image-rendering: pixelated; border-radius: 6px; }}
dt {{ font-weight: 600; margin-top: .6rem; }} dd {{ margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }}
@media (max-width: 48rem) {{ section {{ grid-template-columns: 1fr; }} }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ddd; background: #1b1b1f; }} section {{ border-color: #444; }} }}
</style></head><body>
<h1>ComfyUI-LLMGA demo</h1>
<p>{html.escape(intro)}</p>
{sections}
</body></html>
"""


def _section(chapter: Chapter) -> str:
    said = "\n".join(
        f"<dt>{html.escape(title)}</dt><dd>{html.escape(text)}</dd>" for title, text in chapter.texts
    )
    pictures = "\n".join(
        f'<img alt="{html.escape(chapter.name)}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
        for path in chapter.pictures
    )
    return (
        f"<section><h2>{html.escape(chapter.name)}</h2><p>{html.escape(chapter.about)} "
        f"({chapter.seconds:.1f} s)</p><dl>{said}</dl><div>{pictures}</div></section>"
    )
