"""Turns, stories, dialogues and RFBench from published layouts at the paper's settings, on tiny random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.openai_server import OpenAIServer
from support.tiny_contexts import DISTANCE, NETWORK, full_size, published_folder
from support.tiny_evaluation import SIDE, measure

pytest.importorskip("diffusers", reason="the painters are diffusers'")

from llmga.evaluate.command import through
from llmga.evaluate.data import DataConfig, read_items
from llmga.evaluate.embedders import EmbedderConfig, load_embedder
from llmga.evaluate.paint_jobs import PainterConfig, PaintJob, SceneParts
from llmga.evaluate.painters import DiffusersPainter, load_diffusers_pipeline
from llmga.evaluate.paper import Claim
from llmga.evaluate.scene_painter import scene_settings
from llmga.evaluate.sources import CaptionItem, DialogItem, StoryItem, TurnsItem
from llmga.evaluate.tasks.context import request_in_context
from llmga.evaluate.tasks.turns import conversations
from llmga.evaluate.writers import ChatConfig, Writer
from llmga.gill import GILL, ReplyOptions

pytestmark = pytest.mark.usefixtures("one_thread")
PLAN = {
    "objects": [
        {"name": "a fish", "box": [0.1, 0.1, 0.5, 0.5], "descriptions": ["blue", "blue and small", "red"]}
    ],
    "background": "a grey ground",
    "negative": "",
}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_folder(tmp_path_factory.mktemp("published"))


@pytest.fixture(autouse=True)
def there(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(layout)


def reply(body: dict[str, Any]) -> str:
    """A prompt, the plan of a scene, a description or a score: whatever is asked for."""
    text = str(body["messages"])
    asked = str(body["messages"][-1])
    if "score from 0 to 100" in asked:
        return json.dumps({"score": 50 if "square" in asked else 100, "explanation": "so"})
    if "Describe this picture" in asked:
        return "a square"
    if "You plan pictures" in text:
        return json.dumps(PLAN)
    return f"<gen_image>turn {text.count('gen_image>')} of a square</gen_image>"


@pytest.fixture
def chat(tmp_path: Path) -> Any:
    """A server, and its place in a configuration."""
    with OpenAIServer(reply) as server:
        record = {"url": server.url, "model": "tiny", "pictures": True}
        (tmp_path / "endpoints.json").write_text(json.dumps({"endpoints": {"tiny": record}}))
        yield server, {"engine": f"endpoint:{tmp_path / 'endpoints.json'}#tiny"}


def test_figure_5_measures_words_and_both_embeddings_at_every_turn(chat: Any, tmp_path: Path) -> None:
    server, engine = chat
    config = full_size("turns", f"network={NETWORK}", "turns=2", "data.count=3", "bootstrap=3", chat=engine)
    claims = tuple(
        replace(claim, worse_metric=claim.worse_metric.replace("8", "2")) for claim in config.claims
    )
    (result,) = measure("turns", config, tmp_path / "out")
    assert list(result.rows) == ["LLMGA", "LLMGA Embedding", "GILL"]
    assert all(list(row) == ["FID: turn 1", "FID: turn 2"] for row in result.rows.values())
    assert all(row["FID: turn 1"].count == 3 for row in result.rows.values())
    # The second request of a conversation goes with the first and the reply to it.
    asked = [request.body["messages"] for request in server.requests]
    assert len(asked) == 6 and sorted(len(messages) for messages in asked) == [2] * 3 + [4] * 3
    for row in result.rows.values():
        assert row["FID: turn 1"].value != row["FID: turn 2"].value
    assert claims[0].verdict(result.rows) != "not tested here"
    count = len(server.requests)
    measure("turns", config, tmp_path / "out")
    assert len(server.requests) == count


def test_conversations_ask_for_one_caption_again_or_for_the_next() -> None:
    items = [CaptionItem(str(i), f"caption {i}", Path(f"{i}.png")) for i in range(3)]
    (first, *_) = conversations(items, 2, "same")
    assert first.requests == ("caption 0", "caption 0")
    shifted = conversations(items, 4, "shifted")
    assert shifted[1].captions == ("caption 1", "caption 2", "caption 0", "caption 1")
    assert all(
        {one.pictures[turn].name for one in shifted} == {"0.png", "1.png", "2.png"} for turn in range(4)
    )
    own = [TurnsItem("a", ("x", "y"), ("x", "y"), (Path("0"), Path("1")))]
    assert conversations(own, 1, "same")[0].requests == ("x",)
    for turns, given, said in (
        (0, items, "at least 1"),
        (3, own, "'a' has fewer"),
        (1, [object()], "object"),
    ):
        with pytest.raises(ValueError, match=said):
            conversations(given, turns, "same")


def test_a_story_is_shown_in_three_contexts(chat: Any, tmp_path: Path) -> None:
    server, engine = chat
    config = full_size("story", f"clip={NETWORK}", f"distance={DISTANCE}", chat=engine)
    (result,) = measure("story", config, tmp_path / "out")
    assert result.table == "story" and result.conditions["pictures"] == 3
    whole = {f"{metric}: {c}" for c in ("1 caption", "5 captions") for metric in ("CLIP-I", "LPIPS")}
    assert set(result.rows["SD1.5"]) == whole
    assert set(result.rows["GILL"]) == whole | {f"{m}: 5 captions, 4 pictures" for m in ("CLIP-I", "LPIPS")}
    assert len({estimate.value for estimate in result.rows["GILL"].values()}) == 6
    pictures = [str(request.body["messages"]).count("image_url'") for request in server.requests]
    assert sorted(set(pictures)) == [0, 8]  # each is named twice in a message
    shown = [p for p in (tmp_path / "out").rglob("*.png") if Image.open(p).size == (224, 224)]
    assert len(shown) == 12


def test_a_dialogue_is_shown_round_by_round(chat: Any, tmp_path: Path) -> None:
    _, engine = chat
    config = full_size("dialog", f"clip={NETWORK}", f"distance={DISTANCE}", chat=engine)
    (result,) = measure("dialog", config, tmp_path / "out")
    assert result.table == "dialog"
    assert [name.partition(": ")[2] for name in result.rows["GILL"]][::2] == [
        "1 round",
        "5 rounds",
        "10 rounds",
    ]
    assert result.rows["GILL"]["LPIPS: 1 round"].count == 3
    assert result.rows["GILL"]["CLIP-I: 1 round"] != result.rows["GILL"]["CLIP-I: 10 rounds"]


def test_contexts_are_those_of_gills_scripts() -> None:
    story = StoryItem("s", tuple("abcde"), tuple(Path(f"{i}.png") for i in range(5)))
    paths = story.pictures
    assert request_in_context(story, "1 caption") == ("e",)
    assert request_in_context(story, "5 captions, 4 pictures") == (
        "a", paths[0], "b", paths[1], "c", paths[2], "d", paths[3], "e",
    )  # fmt: skip
    assert request_in_context(story, "3 captions, 1 picture") == ("c", "d", paths[3], "e")
    dialog = DialogItem("d", (("is it red", "no"), ("is it big", "yes")), Path("0.png"))
    assert request_in_context(dialog, "2 rounds") == ("Q: is it red?\nA: no\nQ: is it big?\nA: yes",)
    for item, context in (
        (story, "1 round"), (story, "6 captions"), (story, "1 caption, 1 picture"), (story, "all"),
        (dialog, "3 rounds"), (dialog, "1 round, 1 picture"), (dialog, "0 rounds"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="'contexts'"):
            request_in_context(item, context)


def test_gill_is_read_as_the_released_evaluation_reads_it(layout: Path) -> None:
    """With a generation scale of 1e5 and two words, GILL writes a picture at once; its states are these."""
    embedder = load_embedder(
        EmbedderConfig(
            "gill", "models/opt-6.7b", "models/gill/gill.safetensors", "models/clip-vit-large-patch14"
        )
    )
    gill: GILL = embedder.gill  # type: ignore[attr-defined]
    picture = layout / "data" / "vist" / "images" / "val" / "100.jpg"
    written = gill.write(
        ["a red fox", Image.open(picture).convert("RGB"), "in the snow"],
        ReplyOptions(max_tokens=2, generation_scale=1e5),
    )
    count = gill.parts.sizes.img_tokens
    expected = gill.parts.conditioning(written.states[:count][None])[0]
    found = embedder.states([("a red fox", picture, "in the snow")])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    broken = embedder.states([("a red fox [IMG0]",)])
    assert not torch.equal(broken, embedder.states([("a red fox",), ("",)]))


def test_text_states_paint_as_the_words_that_they_come_from(layout: Path) -> None:
    config = PainterConfig(base="models/stable-diffusion-v1-5", steps=2, layout="llmga_lpw", negative="grey")
    painter = DiffusersPainter(config, load_diffusers_pipeline(config))
    long = "a red square " * 40
    words = PainterConfig(base=config.base, steps=2, layout="llmga", negative="grey")
    plain = DiffusersPainter(words, painter.pipeline)
    for text in ("a square", long):
        states = plain.encoder.encode(plain.encoder.plan(text)).states[0]
        (expected,) = plain.paint([PaintJob("a", text, 0, SIDE, SIDE)])
        (made,) = painter.paint([PaintJob("a", "other words", 0, SIDE, SIDE, states=states)])
        assert list(made.getdata()) == list(expected.getdata())
    with pytest.raises(ValueError, match=r"75 n \+ 2 rows"):
        painter.paint([PaintJob("a", "", 0, SIDE, SIDE, states=states[:5])])


def test_rfbench_is_scored_by_category_and_scenes_are_planned(chat: Any, tmp_path: Path) -> None:
    server, engine = chat
    judge = f"judge.engine={engine['engine']}"
    config = full_size("rfbench", judge, f"clip={NETWORK}", "pictures=2", chat=engine)
    rows = {row.name: row for row in config.rows}
    config = replace(config, rows=(rows["SD1.5"], rows["RFNet"]))
    (result,) = measure("rfbench", config, tmp_path / "out")
    row = result.rows["SD1.5"]
    assert row["GPT4Score: literal"].value == 0.5 and row["GPT4Score: creative"].value == 1.0
    assert row["GPT4Score: all"].value == 0.75 and row["GPT4Score: all"].count == 2
    assert "GPT4-CLIP: all" in row
    painted = list((tmp_path / "out" / "work" / "pictures").rglob("*.png"))
    assert len(painted) == 8 and len({path.read_bytes() for path in painted}) == 8
    asked = len(server.requests)
    measure("rfbench", config, tmp_path / "out")
    assert len(server.requests) == asked
    with server.replying("I would rather not say."):
        refused = replace(config, rows=config.rows[:1], seed=1)
        (silent,) = measure("rfbench", refused, tmp_path / "silent")
    assert silent.notes["SD1.5"][0].startswith("4 of 4 pictures have no score")
    with pytest.raises(ValueError, match="nothing judges the pictures"):
        measure("rfbench", replace(config, judge=ChatConfig()), tmp_path / "none")


def test_a_scene_that_no_engine_plans_is_all_background(chat: Any) -> None:
    server, engine = chat
    assert json.loads(Writer(ChatConfig()).plan("a fish", 0).prompt)["background"] == "a fish"
    with server.replying("no"):
        found = Writer(ChatConfig(**engine)).plan("a fish", 0)
    assert json.loads(found.prompt)["background"] == "a fish" and "cannot be read" in found.fault
    assert json.loads(Writer(ChatConfig(**engine)).plan("a fish", 0).prompt)["objects"][0]["name"] == "a fish"


def test_parts_of_the_synthesis_can_be_left_out() -> None:
    whole, none = (
        scene_settings(SceneParts(), 10, 4.0),
        scene_settings(SceneParts(False, False, False), 10, 4.0),
    )
    assert whole.together.scale > 0 and whole.together.weights.suppression > 0
    assert none.together.scale == none.alone.scale == none.together.weights.suppression == 0


def test_a_conversation_goes_on_where_one_reply_holds_no_prompt(chat: Any) -> None:
    server, engine = chat
    replies = iter(
        ["<gen_image>first</gen_image>", "no tags", "no tags either", "<gen_image>third</gen_image>"]
    )
    with server.replying(lambda body: next(replies)):
        found = Writer(ChatConfig(**engine)).converse([("a",), ("b",), ("c",)], ("a", "b", "c"), "refine", 0)
    assert [one.prompt for one in found] == ["first", "b", "third"]
    assert [bool(one.fault) for one in found] == [False, True, False]
    last = server.requests[-1].body["messages"]
    users = [str(message["content"])[-1] for message in last if message["role"] == "user"]
    assert users == ["a", "c"], "a request without a prompt stays out of the history"


def test_a_claim_may_compare_two_figures_of_one_row() -> None:
    from llmga.evaluate.estimates import Estimate

    rows = {"GILL": {"FID: turn 1": Estimate(1.0, 0.1, 9), "FID: turn 8": Estimate(2.0, 0.1, 9)}}
    decays = Claim("decays", "GILL", "GILL", "FID: turn 1", "FID: turn 8")
    assert decays.verdict(rows) == "holds"
    assert replace(decays, worse_metric="FID: turn 9").verdict(rows) == "not tested here"


def test_mistakes_in_rows_are_named(tmp_path: Path) -> None:
    gill = {"kind": "gill", "language": "models/opt-6.7b", "head": "models/nothing.safetensors"}
    config = full_size("turns", f"network={NETWORK}", "turns=1")
    row = replace(config.rows[2], embedder=EmbedderConfig(**gill))
    with pytest.raises(FileNotFoundError, match="nothing"):
        measure("turns", replace(config, rows=(row,)), tmp_path / "out")
    with pytest.raises(ValueError, match="embeds what is asked for"):
        through(replace(config, rows=(row,)), ["http://127.0.0.1:1"])
    edit = full_size("edit", f"clip={NETWORK}", f"dino={NETWORK}", "data.kind=vist")
    with pytest.raises(ValueError, match="takes words alone"):
        measure(
            "edit", replace(edit, rows=(replace(edit.rows[0], embedder=row.embedder),)), tmp_path / "edit"
        )
    with pytest.raises(ValueError, match="must be llmga or gill"):
        load_embedder(EmbedderConfig())
    assert len(read_items(DataConfig("prompts", count=5), tmp_path)) == 5
