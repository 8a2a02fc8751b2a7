from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llmga.data.samples import SCHEMAS, RandomHole, Sample, SampleOptions, SampleTurn, make_sample
from llmga.data.schemas import Caption, Dialogue, Edit, Message, Refinement
from llmga.data.templates import TEMPLATES, Language
from llmga.paint.masks import MIXES, Borders, Boxes, MaskMix

ROOT = Path("pictures")
CAPTION = Caption("a/1.jpg", "A long caption.")
REFINEMENT = Refinement("a/1.jpg", "A long caption.", "a bus")
EDIT = Edit("a/1.jpg", "Make it blue.", "a blue bus", "a red bus")
TAGGED = "<gen_image> A long caption. </gen_image>"


def draw(task, record, recipe=None, count=2000):
    rng = np.random.default_rng(0)
    return [make_sample(task, record, ROOT, recipe or SampleOptions(), rng) for _ in range(count)]


def said(role: str, language: Language = "en") -> set[str]:
    return set(TEMPLATES[language][role])


def test_similar_generation_asks_seven_times_in_ten_and_else_describes():
    generated = 0
    for sample in draw("sg", CAPTION):
        question, answer = sample.turns
        assert sample.image == ROOT / "a/1.jpg" and sample.hole is None and question.shows_image
        if answer.text == TAGGED:
            generated += 1
            assert question.text in said("similar")
        else:
            assert answer.text == "A long caption." and question.text in said("describe")
    assert generated / 2000 == pytest.approx(0.7, abs=0.04)


def test_refinement_takes_every_side_half_the_time_and_shows_no_picture():
    seen: dict[tuple[bool, bool], int] = {}
    for sample in draw("t2i", REFINEMENT):
        question, answer = sample.turns
        assert sample.image is None and not question.shows_image
        generate, behind = answer.text == TAGGED, question.text.startswith("a bus ")
        instruction = question.text.removeprefix("a bus ") if behind else question.text.removesuffix(" a bus")
        role = "expand" if not generate else "generate_behind" if behind else "generate_before"
        assert instruction in said(role) and (generate or answer.text == "A long caption.")
        seen[generate, behind] = seen.get((generate, behind), 0) + 1
    assert [seen[key] / 2000 for key in sorted(seen)] == pytest.approx([0.25] * 4, abs=0.04)


def test_inpainting_is_asked_for_by_the_kind_of_hole():
    outpainted = 0
    for sample in draw("inpainting", CAPTION):
        assert sample.hole is not None and sample.turns[1].text == TAGGED and sample.turns[0].shows_image
        borders = isinstance(sample.hole.shape, Borders)
        outpainted += borders
        assert sample.turns[0].text in said("outpaint" if borders else "inpaint")
    assert outpainted / 2000 == pytest.approx(0.5, abs=0.04)
    holes = [sample.hole for sample in draw("inpainting", CAPTION, count=9) if sample.hole]
    assert len(holes) == 9 and all(np.array_equal(hole.mask(9, 40), hole.mask(9, 40)) for hole in holes)


def test_an_edit_shows_its_picture_or_begins_with_its_caption():
    answer = SampleTurn("assistant", "<gen_image> a blue bus </gen_image>")
    with_picture = Sample((SampleTurn("user", "Make it blue", shows_image=True), answer), ROOT / "a/1.jpg")
    with_caption = Sample((SampleTurn("user", "a red bus Make it blue"), answer))
    samples = draw("edit", EDIT)
    assert {*samples} == {with_picture, with_caption}
    assert samples.count(with_picture) / 2000 == pytest.approx(0.5, abs=0.04)
    assert {*draw("edit", Edit("a/1.jpg", "Make it blue", "a blue bus"), count=50)} == {with_picture}


def test_probabilities_tag_and_language_are_the_recipes():
    recipe = SampleOptions(tag="gen_img", languages=("zh",), similar=1.0, generate=0.0, behind=1.0)
    assert all(
        s.turns[1].text == "<gen_img> A long caption. </gen_img>" for s in draw("sg", CAPTION, recipe, 50)
    )
    assert all(s.turns[0].text in said("similar", "zh") for s in draw("sg", CAPTION, recipe, 50))
    assert {s.turns[0].text for s in draw("t2i", REFINEMENT, recipe, 300)} == {
        "a bus " + text for text in said("expand", "zh")
    }
    both = [s.turns[0].text for s in draw("sg", CAPTION, SampleOptions(languages=("en", "zh")), 1000)]
    assert sum(text.isascii() for text in both) / 1000 == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tag": "edit_image"},
        {"languages": ()},
        {"languages": ("de",)},
        {"similar": 1.5},
        {"behind": float("nan")},
    ],
)
def test_a_wrong_recipe_is_refused(wrong):
    with pytest.raises(ValueError, match=repr(next(iter(wrong)))):
        SampleOptions(**wrong)


def talk(*messages: tuple[str, str], image: str | None = None) -> Dialogue:
    return Dialogue(tuple(Message(speaker, text) for speaker, text in messages), image)  # type: ignore[arg-type]


def test_a_dialogue_keeps_its_words_and_takes_the_mark_off():
    [sample] = draw(
        "vqa",
        talk(
            ("human", "What?\n<image>"), ("gpt", "A bus."), ("human", "Sure?"), ("gpt", "Yes"), image="1.jpg"
        ),
        count=1,
    )
    assert sample.turns == (
        SampleTurn("user", "What?", shows_image=True),
        SampleTurn("assistant", "A bus."),
        SampleTurn("user", "Sure?"),
        SampleTurn("assistant", "Yes"),
    )
    assert sample.image == ROOT / "1.jpg"
    [plain] = draw("qa", talk(("human", "What is <image> in HTML? "), ("gpt", "No tag.")), count=1)
    assert plain == Sample(
        (SampleTurn("user", "What is <image> in HTML? "), SampleTurn("assistant", "No tag."))
    )


def test_a_cut_dialogue_begins_with_a_question_and_ends_with_an_answer():
    [sample] = draw(
        "qa", talk(("gpt", "…so."), ("human", "Why?"), ("gpt", "Because."), ("human", "And?")), count=1
    )
    assert sample.turns == (SampleTurn("user", "Why?"), SampleTurn("assistant", "Because."))
    with pytest.raises(ValueError, match="no question with an answer"):
        draw("qa", talk(("gpt", "so."), ("human", "Why?")), count=1)


def test_a_sample_follows_from_its_generator():
    for task, record in [("sg", CAPTION), ("t2i", REFINEMENT), ("inpainting", CAPTION), ("edit", EDIT)]:
        assert draw(task, record, count=20) == draw(task, record, count=20)
    assert set(SCHEMAS.values()) == {Dialogue, Refinement, Caption, Edit}


def test_the_picture_is_upright_rgb_and_black_in_its_hole(tmp_path):
    file = tmp_path / "1.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGBA", (30, 20), (200, 100, 50, 255)).save(file, exif=exif)
    hole = RandomHole(Boxes((1, 1), (200, 200)), seed=1)
    picture = Sample((), file, hole).picture()
    assert picture is not None and picture.size == (20, 30) and picture.mode == "RGB"
    pixels, mask = np.asarray(picture), hole.mask(30, 20)
    assert 0 < mask.mean() < 1
    assert (pixels[mask == 1] == 0).all() and (pixels[mask == 0] == (200, 100, 50)).all()
    whole = Sample((), file).picture()
    assert whole is not None and (np.asarray(whole) == (200, 100, 50)).all()
    assert Sample(()).picture() is None


def test_holes_of_a_recipe_are_its_own():
    only_boxes = SampleOptions(holes=MaskMix(((1.0, Boxes((1, 1), (9, 9))),)))
    assert all(s.turns[0].text in said("inpaint") for s in draw("inpainting", CAPTION, only_boxes, 50))
    assert SampleOptions().holes is MIXES["stage1"]


def test_edits_of_the_released_code_are_words_alone():
    words = SampleOptions(edit_caption=0.0, edit_picture=0.0)
    for seed in range(20):
        sample = make_sample("edit", EDIT, Path("d"), words, np.random.default_rng(seed))
        assert sample.image is None and not any(turn.shows_image for turn in sample.turns)
        assert sample.turns[0].text == EDIT.instruction.rstrip(".")


def test_a_records_system_text_goes_with_its_sample():
    record = Dialogue((Message("human", "x"), Message("gpt", "y")), system="Be brief.")
    assert (
        make_sample("qa", record, Path("d"), SampleOptions(), np.random.default_rng(0)).system == "Be brief."
    )
