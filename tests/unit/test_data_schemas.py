import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmga.data.schemas import Caption, Dialogue, Edit, Message, Records, Refinement, write_records

# One record of each released file, as the loaders read them, with fields that they ignore.
RELEASED = [
    (
        Dialogue,
        {
            "id": "000000033471",
            "image": "coco/train2017/000000033471.jpg",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat are the colors of the bus?"},
                {"from": "gpt", "value": "White and red."},
            ],
        },
        Dialogue(
            (Message("human", "<image>\nWhat are the colors of the bus?"), Message("gpt", "White and red.")),
            "coco/train2017/000000033471.jpg",
            "000000033471",
        ),
    ),
    (
        Dialogue,
        {
            "id": 7,
            "model": "",
            "conversations": [{"from": "human", "value": "<image> in HTML?"}, {"from": "gpt", "value": "No"}],
        },
        Dialogue((Message("human", "<image> in HTML?"), Message("gpt", "No")), None, 7),
    ),
    (Caption, {"image": "COCO/1.jpg", "caption": "A “red” bus\n"}, Caption("COCO/1.jpg", "A “red” bus\n")),
    (
        Refinement,
        {"image": "a/b.png", "caption": "long ] } text", "ori_caption": 'short "quote'},
        Refinement("a/b.png", "long ] } text", 'short "quote'),
    ),
    (
        Edit,
        {"image": "1.jpg", "instruction": "make it blue.", "new_caption": "a blue bus"},
        Edit("1.jpg", "make it blue.", "a blue bus"),
    ),
]


def write(path: Path, document: object) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize(("schema", "raw", "record"), RELEASED)
@pytest.mark.parametrize("indent", [None, 4])
def test_released_records_are_read_and_written_back(tmp_path, schema, raw, record, indent):
    path = write(tmp_path / "train.json", json.dumps([raw, raw], indent=indent))
    records = Records(path, schema)
    assert list(records) == [record, record] and records[-1] == record and records[0:1] == [record]
    assert write_records(tmp_path / "copy.json", records) == 2
    assert list(Records(tmp_path / "copy.json", schema)) == [record, record]
    known = {"id", "image", "conversations", "caption", "ori_caption", "instruction", "new_caption"}
    assert json.loads((tmp_path / "copy.json").read_text(encoding="utf-8"))[0] == {
        key: value for key, value in raw.items() if key in known
    }


texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)


@given(st.lists(st.builds(Edit, st.just("a.png"), texts, texts, st.none() | texts)))
def test_any_text_survives(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("any") / "train.json"
    write_records(path, records)
    assert list(Records(path, Edit)) == records


def test_a_written_file_is_for_people_too(tmp_path):
    write_records(tmp_path / "train.json", [Caption("1.jpg", "公共汽车"), Caption("2.jpg", "b")])
    assert (tmp_path / "train.json").read_text(encoding="utf-8").splitlines() == [
        "[",
        '{"image": "1.jpg", "caption": "公共汽车"},',
        '{"image": "2.jpg", "caption": "b"}',
        "]",
    ]


@pytest.mark.parametrize(
    "image", ["../a.png", "a/../../b.png", "/etc/passwd", "C:/a.png", "C:a.png", "a\\b", ""]
)
def test_paths_that_leave_the_folder_are_refused(tmp_path, image):
    path = write(tmp_path / "train.json", [{"image": image, "caption": "x"}])
    with pytest.raises(ValueError, match=r"train\.json, record 0: 'image'"):
        Records(path, Caption)[0]
    with pytest.raises(ValueError, match="record 0: 'image'"):
        write_records(tmp_path / "out.json", [Caption(image, "x")])
    assert not (tmp_path / "out.json").exists()


def dialogue(*speakers: str, image: str | None = None, mark: str = "") -> dict:
    said = [{"from": speaker, "value": mark + "x"} for speaker in speakers]
    return {"conversations": said, **({"image": image} if image else {})}


@pytest.mark.parametrize(
    ("schema", "raw", "message"),
    [
        (Caption, {"image": "a.png"}, "'caption' must be a text"),
        (Caption, {"image": "a.png", "caption": " "}, "'caption' must be a text"),
        (Caption, {"image": "a.png", "caption": ["x"]}, "'caption' must be a text"),
        (Edit, {"image": "a.png", "instruction": "x", "new_caption": "y", "caption": 3}, "'caption' must be"),
        (Dialogue, {}, "'conversations'"),
        (Dialogue, {"conversations": "hello"}, "'conversations'"),
        (Dialogue, dialogue("human", "human"), r"'conversations\[1\].from' must take turns"),
        (Dialogue, dialogue("human", "system"), r"'conversations\[1\].from'"),
        (Dialogue, dialogue("system"), "a system message and nothing else"),
        (Dialogue, dialogue("system", "human", "system"), r"'conversations\[2\].from'.*first message only"),
        (Dialogue, dialogue("system", "human", "human"), r"'conversations\[2\].from' must take turns"),
        (Dialogue, {"system": 3, **dialogue("human")}, "the system message must be a string"),
        (Dialogue, {"conversations": [{"role": "user", "content": "x"}]}, r"'conversations\[0\].from'"),
        (Dialogue, {"image": "", **dialogue("human")}, "'image' must be a relative path"),
        (Dialogue, {"conversations": [{"from": "gpt"}]}, r"'conversations\[0\].value'"),
        (Dialogue, {"id": [], **dialogue("human")}, "'id'"),
        (Dialogue, dialogue("human", image="a.png"), "0 times"),
        (Dialogue, dialogue("human", "gpt", "human", image="a.png", mark="<image>"), "2 times"),
    ],
)
def test_a_wrong_record_is_named(tmp_path, schema, raw, message):
    good = next(raw for kind, raw, _ in RELEASED if kind is schema)
    path = write(tmp_path / "train.json", [good, raw])
    records = Records(path, schema)
    assert records[0]
    with pytest.raises(ValueError, match=r"train\.json, record 1: .*" + message):
        records[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("hello", "cut off"),
        ('{"a": 1}', "array of objects"),
        ('["a"]', "array of objects"),
        ('[{"a": 1}, 3, {"a": 1}]', "array of objects"),
        ('[{"a": 1}{"a": 1}]', "array of objects"),
        ('[{"a": 1},]', "array of objects"),
        ('[[{"a": 1}]]', "array of objects"),
        ('[{"a": 1}', "cut off"),
        ('[{"a": "1}]', "cut off"),
        ('[{"a": 1}] x', "goes on"),
    ],
)
def test_a_file_that_is_no_array_of_objects_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        Records(write(tmp_path / "train.json", text), Caption)


def test_damage_inside_a_record_is_found_when_it_is_read(tmp_path):
    records = Records(write(tmp_path / "train.json", '[{"image": "a.png", "caption": nonsense}]'), Caption)
    with pytest.raises(ValueError, match="record 0"):
        records[0]


def test_empty_array_and_byte_order_mark(tmp_path):
    assert len(Records(write(tmp_path / "a.json", " [ ] \n"), Caption)) == 0
    assert (
        Records(write(tmp_path / "b.json", '\ufeff[{"image": "a", "caption": "b"}]'), Caption)[0].caption
        == "b"
    )


def test_reading_is_lazy_and_can_be_sent_to_a_worker(tmp_path, monkeypatch):
    path = write(tmp_path / "train.json", [{"image": "a.png", "caption": str(i)} for i in range(20_000)])
    monkeypatch.setattr(json, "loads", None)  # opening decodes nothing
    records = Records(path, Caption)
    monkeypatch.undo()
    copy = pickle.loads(pickle.dumps(records))  # noqa: S301, our own bytes
    assert len(copy) == 20_000 and copy[12_345].caption == "12345"
    with pytest.raises(IndexError):
        copy[20_000]


SYSTEM = {"from": "system", "value": "Be brief."}


def test_a_record_without_a_picture_may_say_null(tmp_path):
    """pandas and datasets write it so."""
    (record,) = Records(
        write(tmp_path / "train.json", [{"image": None, "id": None, **dialogue("human", "gpt")}]), Dialogue
    )
    assert record.image is None and record.id is None


@pytest.mark.parametrize(
    ("raw", "system"),
    [
        (
            {
                "conversations": [
                    {"from": "system", "value": "Be brief."},
                    *dialogue("human", "gpt")["conversations"],
                ]
            },
            "Be brief.",
        ),
        ({"system": "Be brief.", **dialogue("human", "gpt")}, "Be brief."),
        ({"system": "", **dialogue("human", "gpt")}, None),
        ({"system": None, **dialogue("human", "gpt")}, None),
    ],
)
def test_a_records_own_system_text(tmp_path, raw, system):
    (record,) = Records(write(tmp_path / "train.json", [raw]), Dialogue)
    assert record.system == system and [message.speaker for message in record.messages] == ["human", "gpt"]
    write_records(tmp_path / "again.json", [record])
    assert Records(tmp_path / "again.json", Dialogue)[0] == record


def test_all_records_are_scanned_in_order_and_a_bad_one_is_named(tmp_path):
    path = write(
        tmp_path / "train.json", [dialogue("human", "gpt"), {"image": None, **dialogue("gpt")}, {"x": 1}]
    )
    records, seen = Records(path, Dialogue), []
    with pytest.raises(ValueError, match=r"train\.json, record 2: 'conversations'"):
        for record in records.scan():
            seen.append(record)
    assert seen == [records[0], records[1]]
