"""What the refiner learns of a conversation: rows, labels and pictures, of four families with their own templates."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the refiner trains a transformers model")

from PIL import Image
from support.chat_templates import QWEN3, QWEN35
from support.tiny_refiner import BASES, SEES, TALK
from support.tiny_stage1 import PICTURE, write_data

from llmga.chat import Conversation, Picture
from llmga.chat.folders import load_local_engine
from llmga.data.mixture import Mixture, Part
from llmga.data.samples import RandomHole, Sample, SampleTurn
from llmga.paint.masks import MIXES
from llmga.train.refiner import load_base, load_processor, lora_targets
from llmga.train.refiner_rows import AnswerCollator, AnswerEncoder
from llmga.train.turns import IGNORED

pytestmark = pytest.mark.usefixtures("one_thread")


def base_in(folder: Path) -> Base:
    return Base(folder, load_base(str(folder), "no"), load_processor(str(folder)))


class Base(NamedTuple):
    folder: Path
    net: Any
    processor: Any

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)

    def encoder(self, max_length: int = 500, max_pixels: int = 1 << 20) -> AnswerEncoder:
        return AnswerEncoder(self.processor, max_length, max_pixels)


@pytest.fixture(scope="module", params=BASES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = BASES[request.param](tmp_path_factory.mktemp("models") / request.param)
    return base_in(folder)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = BASES["qwen3"](tmp_path_factory.mktemp("models") / "qwen3")
    return base_in(folder)


@pytest.fixture(scope="module")
def qwen3_vl(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = BASES["qwen3-vl"](tmp_path_factory.mktemp("models") / "qwen3-vl")
    return base_in(folder)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    PICTURE.save(path)
    return path


def talk(base: Base, picture: Path) -> Sample:
    """TALK, which shows its picture to a base that sees."""
    if hasattr(base.processor, "image_processor"):
        return Sample(TALK, picture)
    return Sample(tuple(SampleTurn(turn.role, turn.text) for turn in TALK))


def texts(base: Base, sample: Sample, **other: Any) -> list[tuple[str, list[str]]]:
    """Of each row its text, a picture as one mark, and the spans that are learned."""
    found = []
    for row in base.encoder().encode(sample, **other):
        ids, labels = (row.sequences[name][0].tolist() for name in ("input_ids", "labels"))
        spans: list[list[int]] = [[]]
        for token, label in zip(ids, labels, strict=True):
            assert label in (token, IGNORED)
            spans = [*spans[:-1], [*spans[-1], token]] if label != IGNORED else [*spans, []]
        text = base.tokenizer.decode(ids)
        for mark in ("<|image_pad|>", "<image_soft_token>"):
            text = re.sub(f"({re.escape(mark)})+", mark, text)
        found.append((text, [base.tokenizer.decode(span) for span in spans if span]))
    return found


def chatml(*turns: str) -> str:
    return "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns)


THOUGHT = "<think>\n\n</think>\n\n"


def test_answers_and_their_ends_are_learned_and_nothing_else(
    base: Base, picture: Path, request: pytest.FixtureRequest
) -> None:
    family = request.node.callspec.params["base"]
    first, second = "<gen_image> a cat </gen_image>", "No."
    shown = "<|vision_start|><|image_pad|><|vision_end|>"
    asked, again = "user\nDraw a cat.", "user\nAnd a dog"
    got = texts(base, talk(base, picture), system="Be short.")
    if family == "qwen3":  # a past answer has no thought, the one that is given an empty one: a row for each
        assert got == [
            (
                chatml(
                    "system\nBe short.", asked, f"assistant\n{first}", again, f"assistant\n{THOUGHT}{second}"
                ),
                [f"{second}<|im_end|>"],
            ),
            (chatml("system\nBe short.", asked, f"assistant\n{THOUGHT}{first}"), [f"{first}<|im_end|>"]),
        ]
        return
    if family == "gemma3":  # no system turn, and lines around the picture
        shown = "\n\n<start_of_image><image_soft_token><end_of_image>\n\n"
        turns = (f"user\nBe short.\n\n{shown}Draw a cat.", f"model\n{first}", again, f"model\n{second}")
        whole = "<bos>" + "".join(f"<start_of_turn>{turn}<end_of_turn>\n" for turn in turns)
        assert got == [(whole, [f"{first}<end_of_turn>", f"{second}<end_of_turn>"])]
        return
    asked = f"user\n{shown}Draw a cat."
    whole = chatml("system\nBe short.", asked, f"assistant\n{first}", again, f"assistant\n{second}")
    assert got == [(whole, [f"{first}<|im_end|>", f"{second}<|im_end|>"])]


def test_a_template_that_leaves_an_empty_thought_out_afterwards(qwen3: Base, tmp_path: Path) -> None:
    shutil.copytree(qwen3.folder, tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").write_text(QWEN35, encoding="utf-8")
    base = base_in(tmp_path / "base")
    asked, again = "user\nDraw a cat.", "user\nAnd a dog"
    first, second = "<gen_image> a cat </gen_image>", "No."  # the first begins as the thought does
    sample = talk(base, tmp_path / "none.png")
    assert texts(base, sample) == [
        (chatml(asked, f"assistant\n{THOUGHT}{first}"), [f"{first}<|im_end|>"]),
        (
            chatml(asked, f"assistant\n{first}", again, f"assistant\n{THOUGHT}{second}"),
            [f"{second}<|im_end|>"],
        ),
    ]
    the_chat_reads_these(base, sample, ())


def test_the_ids_are_those_that_the_chat_reads(base: Base, picture: Path) -> None:
    sample = talk(base, picture)
    the_chat_reads_these(base, sample, (Picture.from_pil(PICTURE),) if sample.image else ())


def the_chat_reads_these(base: Base, sample: Sample, shown: tuple[Picture, ...]) -> None:
    """Each answer is learned behind what the engine reads before it."""
    engine = load_local_engine(base.folder)
    first = Conversation(system="Be short.").say("user", TALK[0].text, shown)
    second = first.say("assistant", TALK[1].text).say("user", TALK[2].text)
    rows = base.encoder().encode(sample, "Be short.")
    for asked, text in ((first, TALK[1].text), (second, TALK[3].text)):
        read = engine._encode(asked)
        start = read["input_ids"].shape[1]
        learned = base.tokenizer(text, add_special_tokens=False)["input_ids"]
        (row,) = (
            row
            for row in rows
            if row.sequences["labels"][0, start - 1 : start].tolist() == [IGNORED]
            and row.sequences["labels"][0, start : start + len(learned)].tolist() == learned
        )
        assert torch.equal(row.sequences["input_ids"][:, :start], read["input_ids"])
        for name in row.pictures:
            assert torch.equal(row.pictures[name], read[name])


def test_the_records_own_system_text_comes_first(base: Base) -> None:
    sample = Sample((SampleTurn("user", "Hi"), SampleTurn("assistant", "Yes.")), system="Own.")
    ((text, _),) = texts(base, sample, system="The run's.")
    assert "\nOwn." in text and "The run's" not in text


def test_a_system_text_without_a_place_comes_before_the_request(qwen3: Base) -> None:
    processor = type(qwen3.processor).from_pretrained(qwen3.folder)
    processor.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
    )
    sample = Sample((SampleTurn("user", "Hi"), SampleTurn("assistant", "Yes.")))
    assert texts(qwen3._replace(processor=processor), sample, system="Be short.") == [
        (chatml("user\nBe short.\n\nHi", "assistant\nYes."), ["Yes.<|im_end|>"])
    ]


def test_text_that_spells_a_control_token_is_text(base: Base) -> None:
    spelled = "<|im_end|> <|image_pad|> <end_of_turn> <start_of_image> <image_soft_token>"

    def specials(text: str) -> list[int]:
        turns = (SampleTurn("user", text), SampleTurn("assistant", f"{text} no\n"))
        (row,) = base.encoder().encode(Sample(turns))
        known = {i for i, token in base.tokenizer.added_tokens_decoder.items() if token.special}
        return [i for i in row.sequences["input_ids"][0].tolist() if i in known]

    assert specials(spelled) == specials("a cat")


def test_white_space_around_an_answer_is_not_learned(base: Base) -> None:
    # "assistant\n" and a line break behind it would become one token, and the answer have no exact place.
    sample = Sample((SampleTurn("user", "Hi"), SampleTurn("assistant", "\n\n Yes. \n")))
    ((_, (answer,)),) = texts(base, sample)
    assert answer.removesuffix("<|im_end|>").removesuffix("<end_of_turn>") == "Yes."


@pytest.mark.parametrize("family", SEES)
def test_a_long_row_loses_its_end_and_no_picture_is_cut(
    family: str, tmp_path_factory: pytest.TempPathFactory, picture: Path
) -> None:
    folder = BASES[family](tmp_path_factory.mktemp("models") / family)
    base = base_in(folder)
    turns = (SampleTurn("user", "Well", True), SampleTurn("assistant", "I see."))
    (whole,) = base.encoder().encode(Sample(turns, picture))
    ids = whole.sequences["input_ids"][0].tolist()
    image = base.net.config.image_token_id
    first, count = ids.index(image), ids.count(image)
    assert count > 1 and not whole.cut
    for length in range(1, len(ids) + 2):
        (row,) = base.encoder(length).encode(Sample(turns, picture))
        got = row.sequences["input_ids"][0].tolist()
        assert got == ids[: len(got)] and {value.shape[1] for value in row.sequences.values()} == {len(got)}
        assert got.count(image) == (count if row.pictures else 0)
        assert len(got) == min(length, len(ids)) or (len(got) <= first and not row.pictures)
        assert row.cut == (len(got) < len(ids))


def test_a_picture_is_read_upright_with_its_hole_and_scaled_down(qwen3_vl: Base, tmp_path: Path) -> None:
    wide = Image.new("RGB", (128, 64), "red")
    exif = wide.getexif()
    exif[0x0112] = 6  # turned by a quarter
    wide.save(tmp_path / "a.jpg", exif=exif, quality=100)
    turns = (SampleTurn("user", "Fill", True), SampleTurn("assistant", "Yes."))
    hole = RandomHole(MIXES["stage1"].pick(np.random.default_rng(3)), 5)
    plain, holed = (Sample(turns, tmp_path / "a.jpg", h) for h in (None, hole))
    (row,) = qwen3_vl.encoder().encode(plain)
    assert row.pictures["image_grid_thw"].tolist() == [[1, 8, 4]]  # 16 px a patch: taller than wide
    (small,) = qwen3_vl.encoder(max_pixels=64 * 32).encode(plain)
    assert small.pictures["image_grid_thw"].tolist() == [[1, 4, 2]]
    (with_hole,) = qwen3_vl.encoder().encode(holed)
    assert not torch.equal(with_hole.pictures["pixel_values"], row.pictures["pixel_values"])


def test_words_alone_beside_a_picture_have_the_loss_that_they_have_alone(base: Base, picture: Path) -> None:
    encoder = base.encoder()
    words = Sample((SampleTurn("user", "Hello there, who are you?"), SampleTurn("assistant", "Good day.")))
    rows = [*encoder.encode(words), *encoder.encode(talk(base, picture))]
    collator = AnswerCollator(None, encoder)  # type: ignore[arg-type]
    total, count = torch.zeros(()), 0
    for row in rows:
        batch = collator.collate([row])
        learned = int((batch["labels"] != IGNORED).sum())
        total, count = total + base.net(**batch).loss * learned, count + learned
    together = collator.collate(rows)
    assert len(together["input_ids"]) == len(rows) and (together["attention_mask"] == 0).any()
    assert base.net(**together).loss.item() == pytest.approx((total / count).item(), rel=1e-4)


def test_only_the_language_model_gets_adapters(base: Base) -> None:
    chosen = {name for name, _ in base.net.named_modules() if re.fullmatch(lora_targets(base.net), name)}
    assert len(chosen) == 2 * 7  # layers, projections
    assert not any("vis" in name or "lm_head" in name for name in chosen)


def test_a_batch_names_the_record_that_cannot_be_read(qwen3_vl: Base, tmp_path: Path) -> None:
    write_data(tmp_path)
    mixture = Mixture({"holes": Part(tmp_path / "inpainting.json", tmp_path, "inpainting")})
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"mixture part 'holes', record 0: .*a\.png"):
        AnswerCollator(mixture, qwen3_vl.encoder())([{"index": 0}])


def test_pictures_of_other_shapes_ask_for_a_batch_of_one(qwen3_vl: Base, picture: Path) -> None:
    encoder = qwen3_vl.encoder()
    (row,) = encoder.encode(Sample(TALK, picture))
    other = row._replace(pictures={"pixel_values": torch.zeros(1, 3, 4)})
    with pytest.raises(ValueError, match="micro_batch to 1"):
        AnswerCollator(None, encoder).collate([row, other])  # type: ignore[arg-type]


def test_a_base_without_a_chat_template(base: Base) -> None:
    processor = type(base.processor).from_pretrained(base.folder)
    processor.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        AnswerEncoder(processor, 500)


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("{% for m in messages %}{{ m.role + m.content }}{% endfor %}", id="no end"),
        pytest.param(
            "{% for m in messages %}{{ m.role + m.content + '<|im_end|>' }}{% endfor %}"
            "{{ 'assistant<think>' if add_generation_prompt }}",
            id="always thinks",
        ),
        pytest.param(
            "{{ messages | length }}{% for m in messages %}{{ m.role + m.content + '<|im_end|>' }}{% endfor %}",
            id="counts",
        ),
    ],
)
def test_a_template_that_gives_answers_no_exact_place(template: str, qwen3: Base) -> None:
    processor = type(qwen3.processor).from_pretrained(qwen3.folder)
    processor.chat_template = template
    with pytest.raises(ValueError, match="no exact place"):
        AnswerEncoder(processor, 500)


def test_a_picture_for_a_base_of_words(qwen3: Base, picture: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reads words alone; set base"):
        qwen3.encoder().encode(Sample(TALK, picture))
    write_data(tmp_path)
    mixture = Mixture({"talks": Part(tmp_path / "vqa.json", tmp_path, "vqa")})
    mixture.check()
    with pytest.raises(ValueError, match=r"vqa\.json, record 0: .*leave the part 'talks' out"):
        mixture.check(pictures=False)


def test_a_base_that_is_no_chat_model(tmp_path: Path) -> None:
    from transformers import CLIPTextConfig

    CLIPTextConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'clip_text_model', which is neither"):
        load_processor(str(tmp_path))
    with pytest.raises(ValueError, match="base .*nowhere' cannot be read"):
        load_processor(str(tmp_path / "nowhere"))


def test_a_template_that_refuses_a_conversation(qwen3: Base) -> None:
    processor = type(qwen3.processor).from_pretrained(qwen3.folder)
    processor.chat_template = "{{ raise_exception('say please') if 'Hi' in messages[0].content }}" + QWEN3
    sample = Sample((SampleTurn("user", "Hi"), SampleTurn("assistant", "Yes.")))
    with pytest.raises(ValueError, match="refuses this conversation: say please"):
        AnswerEncoder(processor, 500).encode(sample)
