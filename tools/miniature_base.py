"""What a ComfyUI needs to run the workflows on the miniature: its models, pictures with holes, an endpoint, a history."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from PIL import Image

from llmga.chat import Conversation
from miniworld.world.render import render
from miniworld.world.scene import SIZES, Scene, sample_scene

from .miniature import FOLDERS, picture_size
from .miniature_values import CAPTIONED, ENDPOINT, EXAMPLE, HISTORY, NARROW, PAINTED, TALK, TWO_HOLES
from .props import EXAMPLE as EXAMPLE_SEED

LEFT_THIRD = (0.04, 0.3, 0.36, 0.7)
"""The hole of the example, around its heart: left, top, right, bottom, in parts of the side."""
BOTTOM = (0.42, 0.66, 0.78, 0.98)
"""A second hole of the example, where nothing stands."""
GAIN, BIAS = 0.85, 30
"""What a badly painted hole has of the true colours."""


def furnish(base: Path, miniature: Path, endpoint_url: str) -> tuple[str, ...]:
    """Put the miniature's things into a server's base folder; what is a person's own there stays.

    Returns:
        Arguments that make ComfyUI look for models in the miniature's folder too.
    """
    write_pictures(base / "input", picture_size(miniature))
    private = base / "user" / "__llmga"
    add_endpoint(private / "endpoints.json", endpoint_url)
    history = private / "histories" / f"{HISTORY}.json"
    if not history.exists():
        history.parent.mkdir(parents=True, exist_ok=True)
        history.write_text(example_conversation().to_json(), encoding="utf-8")
    paths = base / "miniature_paths.yaml"
    lines = [f"  {name}: {name}" for name in FOLDERS if (miniature / name).is_dir()]
    text = f"llmga_miniature:\n  base_path: {json.dumps(str(miniature.resolve()))}\n"
    paths.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
    return ("--extra-model-paths-config", str(paths))


def add_endpoint(path: Path, url: str) -> None:
    """Write the record of the miniature's server into ``endpoints.json`` beside those that are there.

    Raises:
        ValueError: the file is not valid JSON, or not of endpoints.
    """
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); mend or delete it") from error
    endpoints = known.get("endpoints", {}) if isinstance(known, dict) else None
    if not isinstance(endpoints, dict):
        raise ValueError(f'{path} is not an object with an object "endpoints" in it; mend or delete it')
    record = {"url": url, "model": "llmga-mini", "pictures": False}
    records = {**endpoints, ENDPOINT: record}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**known, "endpoints": records}, indent=2), encoding="utf-8")


def example_conversation() -> Conversation:
    """One exchange about paper shapes, for *Load History*."""
    conversation = Conversation()
    for role, text in TALK:
        conversation = conversation.say(role, text)
    return conversation


def example_scene() -> Scene:
    return sample_scene(EXAMPLE_SEED, (2, 3), "validation")


def centred(scene: Scene) -> Scene:
    """The scene with its largest object alone, in the centre."""
    largest = max(scene.objects, key=lambda thing: SIZES[thing.size])
    return replace(scene, objects=(replace(largest, place="centre"),))


def write_pictures(folder: Path, side: int) -> None:
    """The example with a hole as its mask and with two, its middle to be continued, and a version with a badly painted hole.

    Args:
        side: of the pictures, in pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture = render(example_scene(), side).image
    left, top, right, bottom = (round(edge * side) for edge in LEFT_THIRD)
    mask = Image.new("L", picture.size, 255)
    mask.paste(0, (left, top, right, bottom))  # ComfyUI takes what is transparent for the mask
    holed = picture.copy()
    holed.putalpha(mask)
    holed.save(folder / EXAMPLE)
    left, top, right, bottom = (round(edge * side) for edge in BOTTOM)
    mask.paste(0, (left, top, right, bottom))
    holed.putalpha(mask)
    holed.save(folder / TWO_HOLES)
    middle = render(centred(example_scene()), side).image
    middle.crop((side // 4, 0, 3 * side // 4, side)).save(folder / NARROW)
    painted = picture.copy()
    table = [min(255, round(GAIN * value + BIAS)) for value in range(256)] * 3
    part = painted.crop((left, top, right, bottom)).point(table)
    painted.paste(part, (left, top))
    painted.save(folder / PAINTED)
    (folder / CAPTIONED).mkdir(exist_ok=True)
    picture.save(folder / CAPTIONED / EXAMPLE)
