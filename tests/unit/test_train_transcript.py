"""Stage 1 on what its presets name: llava-1.5-7b-hf's own template and a real SentencePiece tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="stage 1 trains a transformers model")
pytest.importorskip("sentencepiece", reason="the tokenizer is a SentencePiece model")

import transformers
from support.real_files import write_sentencepiece_tokenizer
from support.tiny_stage1 import PICTURE, values, write_base, write_data
from transformers import AutoProcessor, AutoTokenizer, CLIPImageProcessor, LlavaProcessor

from llmga.chat.checkpoints.families import FAMILIES, VICUNA_SYSTEM
from llmga.chat.checkpoints.template import ending_ids
from llmga.chat.folders import load_local_engine
from llmga.data.samples import SampleTurn
from llmga.train import build, presets, read_config
from llmga.train.stage1 import Stage1Config, run, set_transcript
from llmga.train.turns import IGNORED, TurnEncoder

pytestmark = pytest.mark.usefixtures("one_thread")

PUBLISHED = json.loads(
    (Path(__file__).parent / "fixtures/llava_1_5_chat_template.json").read_text(encoding="utf-8")
)["chat_template"]
TALK = (
    SampleTurn("user", "Draw a fox.  Two spaces", True),
    SampleTurn("assistant", "<gen_image> A red fox.  In snow </gen_image>"),
    SampleTurn("user", "And in summer?"),
    SampleTurn("assistant", "- one\n  - two"),
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA with llava-1.5-7b-hf's processor files and real tokenizer, and a model of some kilobytes."""
    from tokenizers import AddedToken

    folder = tmp_path_factory.mktemp("published") / "llava-1.5-tiny-hf"
    slow = write_sentencepiece_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    # As Mistral's transformers takes the merges in the order of the scores, as the published tokenizer.json has them.
    tokenizer = AutoTokenizer.from_pretrained(slow, config=transformers.MistralConfig())
    added = [AddedToken(token, normalized=False, special=True) for token in ("<image>", "<pad>")]
    tokenizer.add_tokens(added, special_tokens=True)
    tokenizer.pad_token = "<pad>"
    vision = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        projection_dim=16,
    )
    text = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=32064,
        max_position_embeddings=512,
        pad_token_id=32001,
    )
    config = transformers.LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_index=32000,
        image_seq_length=4,
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        image_token="<image>",
        chat_template=PUBLISHED,
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture()
def processor(published: Path) -> Any:
    return AutoProcessor.from_pretrained(published, local_files_only=True)


def test_the_published_template_ends_no_answer_and_is_refused_by_name(processor: Any) -> None:
    with pytest.raises(ValueError, match="no control token behind it.*Set transcript"):
        TurnEncoder(processor, 500).encode(TALK, [PICTURE])


def test_vicunas_transcript_is_learned_token_by_token(processor: Any) -> None:
    set_transcript(processor, "vicuna_v1")
    encoded = TurnEncoder(processor, 500).encode(TALK, [PICTURE])
    tokenizer = processor.tokenizer
    bos, end, image = (tokenizer.convert_tokens_to_ids(token) for token in ("<s>", "</s>", "<image>"))
    # The official code reads the text between pictures piece by piece, each with SentencePiece's own space before it.
    pieces = [
        (f"{VICUNA_SYSTEM} USER:", False),
        (image, False),
        ("\nDraw a fox.  Two spaces ASSISTANT:", False),
        ("<gen_image> A red fox.  In snow </gen_image>", True),
        (end, True),
        ("USER: And in summer? ASSISTANT:", False),
        ("- one\n  - two", True),
        (end, True),
    ]
    ids, labels = [bos], [IGNORED]
    for piece, taught in pieces:
        if piece == image:
            new = [image] * 4
        elif isinstance(piece, int):
            new = [piece]
        else:
            new = tokenizer(piece, add_special_tokens=False)["input_ids"]
            if piece.endswith("USER:"):
                new.append(tokenizer.convert_tokens_to_ids("▁"))  # the space before the picture
        ids += new
        labels += new if taught else [IGNORED] * len(new)
    assert encoded.ids.tolist() == ids
    assert encoded.labels.tolist() == labels
    assert (
        tokenizer.convert_tokens_to_ids("▁▁") not in encoded.ids
    )  # two spaces are two tokens, as SentencePiece has it


def test_text_between_controls_is_sentencepieces_own(processor: Any) -> None:
    """Against the SentencePiece library itself, which the official slow tokenizer calls."""
    from sentencepiece import SentencePieceProcessor
    from support.real_files import sentencepiece_model

    set_transcript(processor, "vicuna_v1")
    official = SentencePieceProcessor(model_file=str(sentencepiece_model()))
    encoder = TurnEncoder(processor, 500)
    for answer in ("end.  Next", "a\n    b", "狐 \U0001f98a é", "1234 5,6", "  two before"):
        turns = (SampleTurn("user", answer), SampleTurn("assistant", answer))
        ids, labels = encoder.tokens(turns)
        said = f"{VICUNA_SYSTEM} USER: {answer} ASSISTANT: {answer}"
        assert ids == [1, *official.encode(said), 2], answer
        assert labels[-1] == 2 and labels[0] == IGNORED
        learned = [i for i, label in zip(ids, labels, strict=True) if label != IGNORED]
        assert official.decode(learned[:-1]).strip() == answer.strip()


@pytest.mark.parametrize("wrong", ["llama_3", "qwen_2", "phi_3", "gemma"])
def test_a_family_whose_end_is_no_token_of_the_base_is_refused(processor: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"the family {wrong} ends an answer with"):
        set_transcript(processor, wrong)
    assert processor.chat_template == PUBLISHED


@pytest.mark.parametrize("family", ["llava_llama_2", "mistral_instruct"])
def test_other_families_of_the_same_tokenizer_teach_their_end(processor: Any, family: str) -> None:
    set_transcript(processor, family)
    ids, labels = TurnEncoder(processor, 500).tokens(TALK)
    assert labels.count(2) == 2 and ids[-1] == labels[-1] == 2
    assert ending_ids(FAMILIES[family], processor.tokenizer) == (2,)


def test_stage_1_paper_trains_on_its_base_and_the_result_talks_as_vicuna(
    published: Path, tmp_path: Path
) -> None:
    data = write_data(tmp_path / "data")
    preset = read_config(Stage1Config, "stage1-paper")
    config = build(
        Stage1Config,
        values(data, published, {"steps": 1, "save_every": 1}, transcript=preset.transcript, max_length=400),
    )
    with pytest.raises(ValueError, match="Set transcript"):
        run(build(Stage1Config, values(data, published)), tmp_path / "base")
    result = run(config, tmp_path / "run")
    processor = AutoProcessor.from_pretrained(result, local_files_only=True)
    asked = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "A fox."}]}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert asked == f"<s>{VICUNA_SYSTEM} USER: A fox. ASSISTANT:"
    load_local_engine(result)


def test_presets_name_the_transcript_that_their_scripts_do() -> None:
    for name in presets():
        if name.startswith("stage1-"):
            assert read_config(Stage1Config, name).transcript == "vicuna_v1", name


def test_every_family_is_a_value_of_the_key() -> None:
    for family in FAMILIES:
        build(Stage1Config, {**values(Path("d"), Path("b")), "transcript": family})


def test_a_base_of_ones_own_keeps_its_template(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    processor = AutoProcessor.from_pretrained(base, local_files_only=True)
    before = processor.chat_template
    set_transcript(processor, "base")
    assert processor.chat_template == before
    shutil.rmtree(base)
