import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmga.data.cleaning import RULES, RejectedError, clean_caption, clean_edit, word_list

CAPTION = (
    "A red double-decker bus waits at a kerb on the left, its windows bright with reflected clouds. Behind it a "
    "row of brick houses with white frames runs to the right, and two cyclists in yellow vests wait for the "
    "light to change. The road is wet, so the tail lamps glow in long streaks on the asphalt below a pale sky."
)
CHINESE = (
    "一辆红色的双层巴士停在画面左侧的路边，车窗映着明亮的云。它身后是一排带白色窗框的砖房，一直延伸到右边，"
    "两名穿黄色背心的骑车人正等待信号灯变换。路面潮湿，尾灯在浅色天空下的沥青上拖出长长的光痕。"
)


@pytest.mark.parametrize(
    "reply",
    [
        CAPTION,
        f"  {CAPTION}\n",
        f'"{CAPTION}"',
        f"<gen_image> {CAPTION} </gen_image>",
        f"<think>They want a caption.</think>\n{CAPTION}",
        f"Sure! Here is a detailed caption of the picture:\n\n{CAPTION}",
        f"Certainly. {CAPTION}",
        f"Detailed caption: {CAPTION}",
        f"**Caption:** {CAPTION}",
        f"### {CAPTION}",
        CAPTION.replace(". ", ".\n\n"),
        f"The image shows {CAPTION[0].lower()}{CAPTION[1:]}",
        f"Here's the description: This photo depicts {CAPTION[0].lower()}{CAPTION[1:]}",
    ],
)
def test_the_caption_is_freed_of_what_surrounds_it(reply):
    assert clean_caption(reply, RULES["en"]) == CAPTION


def test_a_chinese_caption_is_kept():
    assert clean_caption(CHINESE, RULES["zh"]) == CHINESE


@pytest.mark.parametrize(
    ("reply", "language", "reason"),
    [
        ("", "en", "no words"),
        ("<think>hmm</think>", "en", "no words"),
        ("…!!", "en", "no words"),
        ("I'm sorry, but I can't help with that.", "en", "refusal"),
        (f"I'm sorry, but I can't describe this image. {CAPTION}", "en", "refusal"),
        ("抱歉，我无法描述这张图片。", "zh", "refusal"),
        ("A bus.", "en", "too short"),
        (CAPTION * 4, "en", "too long"),
        ("a bus on a road " * 20, "en", "repeats itself"),
        (CHINESE, "en", "wrong language"),
        (CAPTION, "zh", "wrong language"),
        (f"{CAPTION} See https://example.org", "en", "not a caption"),
        ('{"caption": "' + CAPTION + '"}', "en", "not a caption"),
        (f"<b>{CAPTION}</b>", "en", "not a caption"),
        (f"As an AI model I see this: {CAPTION}", "en", "not a caption"),
        (CAPTION + "\ufffd", "en", "not a caption"),
    ],
)
def test_a_reply_that_is_no_caption_is_rejected_with_its_reason(reply, language, reason):
    with pytest.raises(RejectedError, match=f"^{reason}$"):
        clean_caption(reply, RULES[language])


SOURCE = "A red bus waits at a kerb in the rain while two people cross the street."
TARGET = "A blue bus waits at a kerb in the rain while two people cross the street."


@pytest.mark.parametrize(
    "reply",
    [
        f"Instruction: Make the bus blue.\nTarget caption: {TARGET}",
        f"**Instruction:** Make the bus blue.\n\n**Target caption:** {TARGET}",
        f"Sure, here is an edit.\n1. Instruction: Make the bus blue.\n2. Target Caption: {TARGET}",
        f'instruction: "Make the bus blue."\nnew caption: "{TARGET}"',
        f"<think>colour</think>Edit instruction: Make the bus blue. Edited caption: {TARGET}",
        f"Instruction：Make the bus blue.\nTarget caption：{TARGET}",
    ],
)
def test_an_edit_is_read(reply):
    assert clean_edit(reply, SOURCE, "en") == ("Make the bus blue.", TARGET)


def test_a_chinese_edit_is_read():
    target = CHINESE.replace("红色", "蓝色")
    edit = clean_edit(f"Instruction: 把巴士改成蓝色。\nTarget caption: {target}", CHINESE, "zh")
    assert edit == ("把巴士改成蓝色。", target)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("no idea", "no edit"),
        ("", "no edit"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        (f"Instruction: Make it blue.\nCaption: {TARGET}", "no edit"),
        (f"Instruction: Shall I make it blue?\nTarget caption: {TARGET}", "not an instruction"),
        (f"Instruction: {'make it very blue ' * 10}\nTarget caption: {TARGET}", "not an instruction"),
        (f"Instruction: Make it blue.\nTarget caption: {SOURCE.upper()}!", "changes nothing"),
        ("Instruction: Make it a cat.\nTarget caption: Some cat sleeps on its sofa.", "changes too much"),
        (f"Instruction: 变成蓝色\nTarget caption: {TARGET}", "wrong language"),
        ("Instruction: ...\nTarget caption: ...", "no words"),
        ("Instruction: Make it blue.\nTarget caption: I'm sorry, but I can't do that.", "refusal"),
    ],
)
def test_a_reply_that_is_no_edit_is_rejected_with_its_reason(reply, reason):
    with pytest.raises(RejectedError, match=f"^{reason}$"):
        clean_edit(reply, SOURCE, "en")


pieces = st.sampled_from(
    ["Instruction:", "Target caption:", "<gen_image>", "</gen_image>", "`", "\n", "I can't ", "bus ", "公"]
)


@given(st.lists(pieces | st.text(max_size=20)).map("".join))
def test_any_reply_is_cleaned_or_rejected(reply):
    for clean in (lambda: clean_caption(reply, RULES["en"]), lambda: clean_edit(reply, SOURCE, "zh")):
        try:
            kept = clean()
        except RejectedError:
            continue
        assert "gen_image" not in str(kept)


def test_words_count_letters_and_chinese_characters():
    assert word_list("A well-known Dog's 2 toys, 红色 bus!") == [
        "a",
        "well-known",
        "dog's",
        "2",
        "toys",
        "红",
        "色",
        "bus",
    ]
