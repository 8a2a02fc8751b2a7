import json
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from llmga.data.mixture import Mixture, Part, parts_from_dict, preset
from llmga.data.samples import SampleOptions


@pytest.fixture
def data(tmp_path) -> dict[str, Part]:
    """Three files of 100, 40 and 7 records whose captions are their indices."""

    def part(name: str, task, count: int, ratio: float) -> Part:
        extra = {"ori_caption": "x"} if task == "t2i" else {}
        records = [{"image": f"{i}.png", "caption": f"{i}.", **extra} for i in range(count)]
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
        return Part(tmp_path / f"{name}.json", tmp_path, task, ratio)

    return {
        "main": part("main", "sg", 100, 1.0),
        "t2i": part("t2i", "t2i", 40, 0.3),
        "tiny": part("tiny", "inpainting", 7, 0.5),
    }


def places(mixture: Mixture, epochs: int = 1) -> list:
    return [mixture.place(i) for i in range(epochs * len(mixture))]


def test_weights_pass_once_over_the_first_and_give_the_others_their_share(data):
    mixture = Mixture(data)
    assert mixture.quotas == {"main": 100, "t2i": 30, "tiny": 50} and len(mixture) == 180
    for epoch in range(3):
        drawn = [mixture.place(epoch * 180 + i) for i in range(180)]
        assert Counter(place.part for place in drawn) == mixture.quotas
        assert {place.record for place in drawn if place.part == "main"} == set(range(100))


def test_no_record_comes_again_before_all_others_of_its_part(data):
    drawn = places(Mixture(data), epochs=7)
    for name, count in [("main", 700), ("t2i", 210), ("tiny", 350)]:
        times = Counter(place.record for place in drawn if place.part == name)
        size = {"main": 100, "t2i": 40, "tiny": 7}[name]
        assert sum(times.values()) == count and len(times) == size
        assert max(times.values()) - min(times.values()) <= 1


def test_the_order_is_mixed_and_changes_from_epoch_to_epoch(data):
    drawn = places(Mixture(data), epochs=2)
    assert [place.part for place in drawn[:180]] != [place.part for place in drawn[180:]]
    first_half = Counter(place.part for place in drawn[:90])
    assert 35 < first_half["main"] < 65 and first_half["t2i"] > 5
    assert places(Mixture(data, seed=1)) != drawn[:180]


def test_a_sample_is_a_function_of_seed_and_index_alone(data):
    forwards = [Mixture(data, seed=3)[i] for i in range(400)]
    again = Mixture(data, seed=3)
    assert [again[i] for i in reversed(range(400))] == forwards[::-1]
    worker = pickle.loads(pickle.dumps(again))  # noqa: S301, our own bytes
    assert [worker[i] for i in (0, 399, 17)] == [forwards[i] for i in (0, 399, 17)]
    assert [Mixture(data, seed=4)[i] for i in range(400)] != forwards


def test_a_record_is_put_into_other_words_in_the_next_epoch(data, tmp_path):
    (tmp_path / "one.json").write_text('[{"image": "a.png", "caption": "A bus."}]')
    mixture = Mixture({"one": replace(data["main"], path=tmp_path / "one.json")})
    assert len(mixture) == 1 and len({mixture[epoch] for epoch in range(60)}) > 10


def test_only_the_proportions_of_the_weights_count(data):
    doubled = {name: replace(part, ratio=2 * part.ratio) for name, part in data.items()}
    assert Mixture(doubled).quotas == Mixture(data).quotas
    assert [Mixture(doubled)[i] for i in range(50)] == [Mixture(data)[i] for i in range(50)]


def test_iterating_is_one_epoch(data):
    mixture = Mixture(data)
    assert list(mixture) == [mixture[i] for i in range(len(mixture))]


def test_fraction_mode_takes_shares_of_each_file(data):
    mixture = Mixture(data, mode="fraction")
    assert mixture.quotas == {"main": 100, "t2i": 12, "tiny": 4}


def test_an_ablation_uses_a_fixed_nested_part_of_the_records(data):
    def used(fraction: float, seed: int) -> set[int]:
        part = replace(data["main"], fraction=fraction)
        return {place.record for place in places(Mixture({"main": part}, seed=seed), epochs=3)}

    assert len(used(0.1, 0)) == 10 and used(0.1, 0) == used(0.1, 5) < used(0.35, 0)
    assert len(used(0.35, 1)) == 35 and used(1.0, 1) == set(range(100))
    mixture = Mixture({"main": data["main"], "t2i": replace(data["t2i"], fraction=0.1)})
    assert mixture.quotas == {"main": 100, "t2i": 30}  # the ratio stays, the records repeat


def test_a_part_without_a_ratio_is_left_out_and_not_opened(data):
    gone = Part(Path("nowhere.json"), Path(), "sg", ratio=0)
    assert Mixture({**data, "gone": gone}).quotas.keys() == data.keys()


def test_wrong_mixtures_are_refused(data, tmp_path):
    (tmp_path / "empty.json").write_text("[]")
    for parts, options, message in [
        ({}, {}, "no part"),
        ({"main": replace(data["main"], ratio=0)}, {}, "no part"),
        ({"a": Part(tmp_path / "empty.json", tmp_path, "sg")}, {}, "'a' holds no records"),
        (data, {"mode": "random"}, "'mode' must be one of weights, fraction"),
        (data, {"seed": -1}, "'seed'"),
    ]:
        with pytest.raises(ValueError, match=message):
            Mixture(parts, **options)
    for wrong in [
        {"ratio": -1},
        {"ratio": float("nan")},
        {"ratio": True},
        {"fraction": 0},
        {"fraction": 1.1},
        {"task": "chat"},
    ]:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            replace(data["main"], **wrong)
    with pytest.raises(IndexError):
        Mixture(data)[-1]


def test_the_config_is_read(tmp_path):
    document = {
        "vqa": {"path": "a.json", "images": "pictures", "ratio": 1},
        "lima": {"path": "b.json", "task": "qa", "ratio": 0.3, "fraction": 0.1},
    }
    assert parts_from_dict(document, tmp_path) == {
        "vqa": Part(tmp_path / "a.json", tmp_path / "pictures", "vqa", 1),
        "lima": Part(tmp_path / "b.json", tmp_path, "qa", 0.3, 0.1),
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a.json", "'sg' must be an object with a 'path'"),
        ({"ratio": 1}, "'path'"),
        ({"path": "a", "weight": 1}, "unknown field 'weight'"),
        ({"path": "a", "ratio": "1"}, "'sg': 'ratio'"),
        ({"path": "a", "task": ["qa"]}, "'sg': 'task'"),
        ({"path": "a", "images": 3}, "'images'"),
    ],
)
def test_a_wrong_config_names_its_entry(entry, message):
    with pytest.raises(ValueError, match=message):
        parts_from_dict({"sg": entry}, Path())


def test_presets_are_the_published_mixtures():
    paper, released = preset("paper", Path("data")), preset("released-code", Path("data"))
    assert paper.mode == "weights" and released.mode == "fraction"
    assert {name: part.ratio for name, part in paper.parts.items()} == {
        "vqa": 1, "qa": 0.3, "t2i": 0.3, "sg": 0.3, "inpainting": 0.3, "edit": 0.3,
    }  # fmt: skip
    assert {name: part.ratio for name, part in released.parts.items()} == {
        "vqa": 1, "lima": 1, "oasst2": 1, "t2i": 1, "sg": 1, "inpainting": 1, "edit": 1,
    }  # fmt: skip
    assert next(iter(paper.parts)) == "vqa"
    assert paper.parts["edit"].path == Path("data/jsons/llmga-data/Edit/train.json")
    assert {part.task for part in released.parts.values()} == {"vqa", "qa", "t2i", "sg", "inpainting", "edit"}
    with pytest.raises(ValueError, match="'paper' or 'released-code'"):
        preset("mine", Path())  # type: ignore[arg-type]


def test_a_check_names_a_bad_record_before_it_is_drawn(data, tmp_path):
    for i in range(100):
        (tmp_path / f"{i}.png").touch()
    Mixture(data).check()
    for records, message in (
        (
            [{"conversations": [{"from": "human", "value": "x"}]}],
            "record 0: the dialogue None holds no question",
        ),
        ([{"conversations": [{"role": "user", "content": "x"}]}], "record 0: 'conversations"),
    ):
        path = tmp_path / "qa.json"
        path.write_text(json.dumps(records))
        mixture = Mixture({**data, "qa": Part(path, tmp_path, "qa")})
        with pytest.raises(ValueError, match=r"qa\.json, " + message):
            mixture.check()


def test_a_check_counts_the_pictures_that_are_missing_and_names_their_list(data, tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.png").touch()
    with pytest.raises(
        FileNotFoundError, match=r"95 of 100 pictures of .*main\.json do not exist: .*5\.png, .*7\.png, …;"
    ):
        Mixture(data).check()
    few = Mixture({"tiny": replace(data["tiny"], fraction=0.3)})
    used = {place.record for place in places(few)}
    assert len(used) == 3
    for i in range(7):
        (tmp_path / f"{i}.png").unlink(missing_ok=True)
    for i in used:
        (tmp_path / f"{i}.png").touch()
    few.check()  # of records that the fraction leaves out none is wanted
    Mixture({"t2i": data["t2i"]}).check()  # nor of those whose samples are words alone


def test_a_check_looks_for_the_picture_of_an_edit_that_its_draw_does_not_show(tmp_path):
    records = [{"image": "e.png", "instruction": "x", "new_caption": "y", "caption": "z"}] * 9
    (tmp_path / "edit.json").write_text(json.dumps(records))
    parts = {"edit": Part(tmp_path / "edit.json", tmp_path, "edit")}
    for options, shows in (
        (SampleOptions(edit_caption=0.999), True),
        (SampleOptions(edit_caption=1.0), False),
    ):
        mixture = Mixture(parts, recipe=options)
        if not shows:
            mixture.check()
            continue
        with pytest.raises(FileNotFoundError, match=r"1 of 1 pictures of .*edit\.json"):
            mixture.check()
