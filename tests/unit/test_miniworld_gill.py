"""The miniature's GILL: its recipe, what it is trained on, its vision, and that its check measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers", reason="the miniature's painter needs diffusers")

from llmga.chat import Conversation, OnText, Said, Sampling
from llmga.chat.folders import load_local_engine
from llmga.gill import GILL, DecisionModel, GILLParts, GILLSizes, load_vision, save_decision, save_parts
from llmga.gill.embedding import EmbeddingHead, EmbeddingSizes, load_embedding_head, save_embedding_head
from llmga.train import read_config
from llmga.train.loop import LoopConfig
from miniworld.build.build import build
from miniworld.build.recipe import RECIPES, Recipe
from miniworld.build.stages import STAGES
from miniworld.checks.gill import (
    GILLCheckConfig,
    check_decision,
    check_retrieval,
    check_stories,
    interleaved,
    load_miniature_gill,
)
from miniworld.checks.gill_heads import HeadsConfig, caption_states, check_heads, with_head
from miniworld.checks.painter import truth_of
from miniworld.checks.turns import (
    TurnsConfig,
    agreement,
    check_turns,
    in_words,
    plot_turns,
    turns_table,
    whole_talks,
)
from miniworld.files import CHECKPOINT, EMBEDDING, GILL_DECISION_FILE, GILL_FILE, LANGUAGE, MANIFEST, READER
from miniworld.models.architecture import CONTEXT_DIM
from miniworld.models.embedding import TURNS, EditRequests, conversation_of_edits, without_words
from miniworld.models.gill import OWNED, decision_prompts, frozen_models, story
from miniworld.models.painter import load_pipeline
from miniworld.models.reader import Reading
from miniworld.world.captions import caption_of
from miniworld.world.dataset import ATTRIBUTES
from miniworld.world.scene import sample_scene
from tools import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")
MINIATURE = ROOT / "miniature"
SIZES = GILLSizes(192, 9 * 128, retrieval=64, text=CONTEXT_DIM, head_width=16, head_layers=1)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature with an untrained GILL."""
    folder = tmp_path_factory.mktemp("out")
    for file in (CHECKPOINT, READER):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).symlink_to(MINIATURE / file)
    (folder / "LLM").mkdir()
    (folder / LANGUAGE).symlink_to(MINIATURE / LANGUAGE)
    torch.manual_seed(0)
    save_parts(GILLParts(SIZES), folder / GILL_FILE)
    save_decision(DecisionModel(192), folder / GILL_DECISION_FILE)
    return folder


@pytest.fixture(scope="module")
def gill(out: Path) -> GILL:
    return load_miniature_gill(out)


@pytest.mark.parametrize("name", ["gpu", "cpu", "smoke"])
def test_every_recipe_has_a_gill(name: str) -> None:
    recipe = read_config(Recipe, RECIPES / f"{name}.yaml")
    assert recipe.gill.training.sizes.grid == 3
    assert STAGES["gill"].gives == (GILL_FILE, GILL_DECISION_FILE)


def test_a_story_names_an_object_in_each_sentence() -> None:
    scene = sample_scene(3, (5, 5), "validation")
    sentences, scenes = story(scene)
    assert len(sentences) == 5 and [len(one.objects) for one in scenes] == [1, 2, 3, 4, 5]
    for sentence, thing in zip(sentences, scene.objects, strict=True):
        assert thing.shape in sentence and thing.colour in sentence
    parts = interleaved(sentences, scenes, 256)
    assert [type(part) is str for part in parts] == [True, False] * 4 + [True]
    assert {part.size for part in parts if isinstance(part, Image.Image)} == {(256, 256)}


def test_the_decision_is_told_by_the_background() -> None:
    prompts = decision_prompts(200, 5)
    assert 60 < sum(prompts.labels) < 140
    named = {
        label: {
            b
            for b in OWNED
            if any(b in p for p, own in zip(prompts.prompts, prompts.labels, strict=True) if own == label)
        }
        for label in (0, 1)
    }
    assert named[1] == set(OWNED)


def test_the_grid_holds_the_means_of_the_patches() -> None:
    vision = load_vision(MINIATURE / LANGUAGE, torch.float32)
    pixels = torch.randn(2, 3, vision.size, vision.size, generator=torch.Generator().manual_seed(0))
    vision.use_width(9 * 128)
    patches = vision.net(pixel_values=pixels).last_hidden_state[:, 1:].reshape(2, 6, 6, 128)
    expected = torch.stack(
        [patches[:, y : y + 2, x : x + 2].mean((1, 2)) for y in (0, 2, 4) for x in (0, 2, 4)], 1
    )
    torch.testing.assert_close(vision.pooled(pixels), expected.flatten(1), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="width 100"):
        vision.use_width(100)
    vision.use_width(128)
    assert vision.pooled(pixels).shape == (2, 128)


def test_both_frozen_models_come_from_one_folder() -> None:
    language, vision = frozen_models(MINIATURE / LANGUAGE)
    assert language.width == 192 and vision.net.config.hidden_size == 128
    assert not any(p.requires_grad for net in (language.net, vision.net) for p in net.parameters())


def test_the_check_of_an_untrained_one_is_chance(gill: GILL) -> None:
    config = GILLCheckConfig(count=24, distractors=24)
    found = check_retrieval(gill, config, 128)
    assert found["GILL, 48 pictures"]["recall@1"].value < 0.2
    assert found["chance"]["recall@5"].value == pytest.approx(5 / 48)
    decided = check_decision(gill, config)
    assert decided["always generate"]["accuracy"].count == 24


def test_stories_are_painted_under_every_condition(gill: GILL, out: Path) -> None:
    found = check_stories(gill, out, GILLCheckConfig(count=2, objects=2, steps=2))
    assert list(found) == [
        "prompt, 1 caption",
        "prompt, 2 captions",
        "GILL, 1 caption",
        "GILL, 2 captions",
        "GILL, 2 captions, 1 pictures",
        "chance",
    ]
    assert all(row["colour"].count == 4 for row in found.values())


def test_a_head_learns_and_leaves_the_other_parts_alone(gill: GILL, out: Path, tmp_path: Path) -> None:
    loop = LoopConfig(steps=30, batch=8, micro_batch=8, lr=1e-3, mixed_precision="no", cpu=True)
    config = HeadsConfig(captions=16, count=2, steps=2, training=loop)
    before = {name: value.clone() for name, value in gill.parts.state_dict().items()}
    found = check_heads(out, config, tmp_path, ("linear", "gill_mapper"))
    assert list(found) == ["prompt", "linear", "gill_mapper"] and found["prompt"]["distance"].value == 0
    untrained = with_head(gill.parts, "linear", loop.seed)
    assert untrained.sizes.head == "linear" and torch.equal(untrained.img_rows, gill.parts.img_rows)
    scenes = [sample_scene(7 * 10_000_000 + i, (1, 3), "validation") for i in range(2)]
    asked = caption_states(gill, load_pipeline(out / CHECKPOINT), scenes)
    with torch.no_grad():
        far = (untrained.conditioning(asked.states) - asked.targets).norm(dim=-1).mean().item()
    assert found["linear"]["distance"].value < 0.9 * far
    assert all(torch.equal(value, before[name]) for name, value in gill.parts.state_dict().items())
    assert (out / "check_gill_heads.json").is_file()


def test_conversations_of_edits_go_on_and_hold_no_words_between() -> None:
    turns = conversation_of_edits(5)
    assert len(turns) == 8 and len({turn.scene for turn in turns}) == 8
    assert all(
        shape in turn.prompt for turn in turns for shape in (thing.shape for thing in turn.scene.objects)
    )
    chat = without_words(turns[:3])
    assert [turn.role for turn in chat.turns] == ["user", "assistant"] * 2 + ["user"]
    assert {turn.text for turn in chat.turns if turn.role == "assistant"} == {"<gen_image> </gen_image>"}
    requests = EditRequests(2)
    assert requests.conversation(1) == without_words(conversation_of_edits(0)[:2])
    assert requests.prompt(1) == caption_of(conversation_of_edits(0)[1].scene)


def test_a_reply_without_a_prompt_is_painted_as_it_is() -> None:
    class Talker:
        name, supports_pictures = "talker", False

        def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
            turn = sum(turn.role == "user" for turn in conversation.turns)
            return Said("<gen_image> a star </gen_image>" if turn == 1 else f"words {turn}")

    assert in_words(Talker(), conversation_of_edits(5)[:3]) == ["a star", "words 2", "words 3"]


def test_a_talk_of_all_turns_fits_into_what_the_chat_reads() -> None:
    """With all of its replies the chat's conversation has 2,078 tokens at the last turn, and it reads 2,048."""
    _, talk = whole_talks(2, TURNS, TurnsConfig().seed)
    prompts = in_words(load_local_engine(MINIATURE / LANGUAGE, torch.float32), talk)
    assert len(prompts) == TURNS and all("objects on" in str(prompt) for prompt in prompts)


def test_agreement_counts_whole_objects_and_backgrounds() -> None:
    scenes = [sample_scene(i, (3, 3), "validation") for i in range(2)]
    truth = truth_of(scenes)
    asked = truth[:, :-1].unflatten(1, (9, 4))
    read = Reading(
        asked[..., 0] >= 0,
        {name: asked[..., k].clone() for k, name in enumerate(ATTRIBUTES)},
        truth[:, -1].clone(),
    )
    assert agreement(read, truth).value == 1
    place = int((asked[0, :, 0] >= 0).nonzero()[0])
    read.attributes["colour"][0, place] += 1
    read.background[1] += 1
    assert agreement(read, truth).value == pytest.approx(6 / 8)


def test_three_methods_are_compared_turn_by_turn(out: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_embedding_head(EmbeddingHead(EmbeddingSizes(192, CONTEXT_DIM, 4, 4, 16, 1)), out / EMBEDDING)
    found = check_turns(out, TurnsConfig(count=1, turns=2, steps=2))
    assert list(found) == ["LLMGA", "LLMGA Embedding", "GILL"]
    assert all(len(values) == 2 and values[0].count > 2 for values in found.values())
    assert "turn 2" in turns_table(found)
    plot_turns(found, tmp_path / "turns.png")
    with Image.open(tmp_path / "turns.png") as picture:
        assert picture.size == (960, 540) and len(picture.convert("RGB").getcolors(100_000) or ()) > 4


def test_the_stages_make_both_heads(out: Path, tmp_path: Path) -> None:
    for folder in ("checkpoints", "LLM"):
        (tmp_path / folder).symlink_to(out / folder)
    build(read_config(Recipe, RECIPES / "smoke.yaml"), tmp_path, ["gill", "embedding"], False, ["build"])
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert list(manifest) == ["gill", "embedding"]
    assert manifest["gill"]["figures"]["decision"]["measured_on"] == 16
    assert load_miniature_gill(tmp_path).parts.sizes.vision == 9 * 128
    assert load_embedding_head(tmp_path / EMBEDDING).sizes.text == CONTEXT_DIM
