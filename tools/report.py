"""The demo's report: a contact sheet, a transcript and one HTML page."""

from __future__ import annotations

import base64
import html
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

TILE = 256
TEXT_WIDTH = 460  # of the column with the conversation
GAP = 20
COLUMNS = 4
LINE = 17
SHOWN = 220  # letters of a text beside its pictures


@dataclass
class Chapter:
    """One workflow of the story: what was said in it, the prompt that came of it, and the pictures."""

    name: str
    title: str
    about: str
    seconds: float
    said: list[tuple[str, str]] = field(default_factory=list)  # (who, what)
    prompt: str = ""
    notes: list[tuple[str, str]] = field(default_factory=list)  # (node title, what it showed)
    pictures: list[tuple[str, Path]] = field(default_factory=list)  # (what it is, file)


def write_report(folder: Path, intro: str, chapters: list[Chapter]) -> Path:
    """Write ``contact_sheet.png``, ``transcript.md`` and ``report.html``; returns the page."""
    contact_sheet(chapters).save(folder / "contact_sheet.png")
    (folder / "transcript.md").write_text(transcript(intro, chapters), encoding="utf-8")
    page = folder / "report.html"
    page.write_text(report(intro, chapters), encoding="utf-8")
    return page


def contact_sheet(chapters: list[Chapter]) -> Image.Image:
    """A row for each workflow: what was said and the prompt that came back, then the pictures with what they are."""
    blocks = [_lines(chapter) for chapter in chapters]
    heights = [GAP + 26 + max(TILE + 44, LINE * len(lines)) for lines in blocks]
    width = GAP + TEXT_WIDTH + COLUMNS * (TILE + GAP)
    sheet = Image.new("RGB", (width, sum(heights) + GAP), "#1b1b1f")
    draw = ImageDraw.Draw(sheet)
    title, small = ImageFont.load_default(size=18), ImageFont.load_default(size=13)
    top = GAP
    for chapter, lines, height in zip(chapters, blocks, heights, strict=True):
        draw.text((GAP, top), f"{chapter.title}: {chapter.about}", fill="#ffffff", font=title)
        for i, (colour, line) in enumerate(lines):
            draw.text((GAP, top + 32 + LINE * i), line, fill=colour, font=small)
        for i, (what, path) in enumerate(chapter.pictures[:COLUMNS]):
            left = GAP + TEXT_WIDTH + i * (TILE + GAP)
            with Image.open(path) as picture:
                shown = ImageOps.contain(picture.convert("RGB"), (TILE, TILE), Image.Resampling.NEAREST)
            sheet.paste(shown, (left + (TILE - shown.width) // 2, top + 32 + (TILE - shown.height) // 2))
            label = "\n".join(textwrap.wrap(what, 38))
            draw.multiline_text((left, top + 36 + TILE), label, fill="#c8c8d0", font=small)
        top += height
    return sheet


def _lines(chapter: Chapter) -> list[tuple[str, str]]:
    """The wrapped lines beside a chapter's pictures, each with its colour."""
    colours = {"you": "#9ec5ff", "LLMGA": "#c8c8d0", "GILL": "#c8c8d0", "prompt": "#f2d38b"}
    texts = [(who, text) for who, text in chapter.said if text != chapter.prompt]
    if chapter.prompt:
        texts.append(("prompt", chapter.prompt))
    lines = []
    for who, text in texts:
        wrapped = textwrap.wrap(f"{who}: {text}", 68)
        wrapped = [*wrapped[:14], "…"] if len(wrapped) > 15 else wrapped
        lines += [(colours[who], line) for line in wrapped] + [("#000000", "")]
    return lines


def transcript(intro: str, chapters: list[Chapter]) -> str:
    parts = ["# Transcript", intro]
    for chapter in chapters:
        parts.append(f"## {chapter.title} ({chapter.name}, {chapter.seconds:.1f} s)\n\n{chapter.about}")
        for title, text in _texts(chapter):
            quoted = "\n".join(f"    {line}" for line in text.splitlines())
            parts.append(f"**{title}**\n\n{quoted}")
        parts += [f"![{what}]({path.name})\n{what}" for what, path in chapter.pictures]
    return "\n\n".join(parts) + "\n"


def _texts(chapter: Chapter) -> list[tuple[str, str]]:
    return [*chapter.said, ("prompt", chapter.prompt), *chapter.notes]


def report(intro: str, chapters: list[Chapter]) -> str:
    """One self-contained page: pictures first, what was said beside them, the rest behind a click; all text is escaped."""
    sections = "\n".join(_section(chapter) for chapter in chapters)
    links = "".join(
        f'<li><a href="#{html.escape(one.name)}">{html.escape(one.title)}</a></li>' for one in chapters
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What LLMGA does</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>{STYLE}</style></head><body>
<h1>What LLMGA does</h1>
<p>{html.escape(intro)}</p>
<nav><ol>{links}</ol></nav>
{sections}
</body></html>
"""


STYLE = """
:root { color-scheme: light dark; --back: #fafafa; --text: #222; --soft: #667;
  --line: #d8d8de; --you: #dfe8ff; --it: #eee6f6 }
@media (prefers-color-scheme: dark) { :root { --back: #1b1b1f; --text: #ddd; --soft: #99a; --line: #3a3a42;
  --you: #2c3a5c; --it: #3d3350 } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--text);
  background: var(--back) }
section { border-top: 1px solid var(--line); padding: 1.2rem 0 }
h2 { margin: 0 0 .2rem } section > p { margin: 0 0 .8rem; color: var(--soft) }
.row { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: start }
.said { flex: 1 1 20rem; min-width: 0 } .pictures { display: flex; flex-wrap: wrap; gap: 1rem }
.said p { margin: 0 0 .5rem; padding: .5rem .8rem; border-radius: 12px; background: var(--it); overflow-wrap: anywhere;
  width: fit-content } .said p.you { background: var(--you) }
.said b { display: block; font-size: .75rem; line-height: 1.2; color: var(--soft) }
nav ol { columns: 3 14rem; padding-left: 1.4rem; font-size: .9rem } a { color: inherit }
figure { margin: 0; max-width: 12rem } figcaption { font-size: .85rem; line-height: 1.3; color: var(--soft) }
img { height: 12rem; max-width: 100%; object-fit: contain; border-radius: 8px; display: block }
details { margin-top: .6rem; color: var(--soft); font-size: .9rem } dd { white-space: pre-wrap; overflow-wrap: anywhere }
dt { font-weight: 600 }
"""


def _section(chapter: Chapter) -> str:
    said = "".join(
        f'<p class="{"you" if who == "you" else "it"}"><b>{html.escape(who)}</b>{html.escape(_short(text))}</p>'
        for who, text in chapter.said
    )
    said = said and f'<div class="said">{said}</div>'
    pictures = "".join(
        f'<figure><img alt="{html.escape(what)}" src="data:image/png;base64,'
        f'{base64.b64encode(path.read_bytes()).decode()}"><figcaption>{html.escape(what)}</figcaption></figure>'
        for what, path in chapter.pictures
    )
    more = "".join(
        f"<dt>{html.escape(title)}</dt><dd>{html.escape(text)}</dd>" for title, text in _texts(chapter)
    )
    took = f"workflow {html.escape(chapter.name)}, {chapter.seconds:.0f} s"
    details = f"<details><summary>Every word ({took})</summary>"
    return (
        f'<section id="{html.escape(chapter.name)}"><h2>{html.escape(chapter.title)}</h2><p>{html.escape(chapter.about)}</p>'
        f'<div class="row">{said}<div class="pictures">{pictures}</div></div>'
        + (f"{details}<dl>{more}</dl></details>" if more else "")
        + "</section>"
    )


def _short(text: str) -> str:
    """The beginning of a long text; tags of prompts are left out."""
    text = text.replace("<gen_image>", "").replace("</gen_image>", "").strip()
    return text if len(text) <= SHOWN else text[:SHOWN].rsplit(" ", 1)[0] + " …"
