"""The GILL nodes on a real server: pictures from embeddings, retrieval, the decision, caches, cancel, wrong input."""

from __future__ import annotations

from typing import Any

import pytest
from support.graphs import checkpoint, executed, image, node, preview

from tools.comfy_client import PromptFailedError, PromptInterruptedError
from tools.comfy_server import ComfyServer
from tools.props import GILL, LANGUAGE_MODEL


def loader(**inputs: Any) -> dict[str, Any]:
    files = {"gill": f"{GILL}.safetensors", "vision": f"{GILL}.safetensors", "decision": "none"}
    return node("LLMGA_GILLLoader", **{"language": LANGUAGE_MODEL, **files, **inputs})


def talk(gill: str = "1", message: str = "a red fox in the snow", **inputs: Any) -> dict[str, Any]:
    widgets = {"picture": "auto", "transcript": "plain", "seed": 0, "temperature": 0.0, "max_tokens": 12}
    widgets |= {"picture_scale": 1.0, "decide": True}
    return node("LLMGA_GILLChat", gill=[gill, 0], message=message, **{**widgets, **inputs})


def painted(chat: str) -> dict[str, Any]:
    return {
        "10": checkpoint(),
        "11": node("CLIPTextEncode", clip=["10", 1], text=""),
        "12": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "13": node(
            "KSampler", model=["10", 0], positive=[chat, 3], negative=["11", 0], latent_image=["12", 0], seed=0, steps=2,
            cfg=2.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "14": node("VAEDecode", samples=["13", 0], vae=["10", 2]),
        "15": node("PreviewImage", images=["14", 0]),
    }  # fmt: skip


def readout(entry: dict[str, Any], chat: str = "2") -> str:
    return entry["outputs"][chat]["text"][0]


def record(entry: dict[str, Any], chat: str = "2") -> dict[str, Any]:
    """What the panel shows."""
    (found,) = entry["outputs"][chat]["llmga_gill"]
    return found


def test_an_embedding_is_painted_and_depends_on_all_that_was_said(server: ComfyServer) -> None:
    pictures = []
    for message, shown in (("a red fox", False), ("a blue whale", False), ("a red fox", True)):
        more: dict[str, Any] = {"image": ["3", 0]} if shown else {}
        prompt = {
            "1": loader(),
            "2": talk(message=message, picture="always", **more),
            "3": image(),
            **painted("2"),
        }
        entry, _ = executed(server, prompt)
        assert "generate, probability 1.000: there is no index" in readout(entry)
        pictures.append(server.view(entry["outputs"]["15"]["images"][0]))
    assert len(set(pictures)) == 3


def test_the_history_goes_on(server: ComfyServer) -> None:
    prompt = {
        "1": loader(),
        "2": talk(picture="always"),
        "3": talk(message="blue", picture="always", history=["2", 5], image=["4", 0]),
        "4": image(),
        "5": talk(message="blue", picture="always", image=["4", 0]),
        **painted("3"),
    }
    entry, _ = executed(server, prompt)
    other, _ = executed(server, {**{k: v for k, v in prompt.items() if k not in "23"}, **painted("5")})
    views = [server.view(one["outputs"]["15"]["images"][0]) for one in (entry, other)]
    assert views[0] != views[1]


def test_without_a_picture_nothing_is_painted(server: ComfyServer) -> None:
    prompt = {"1": loader(), "2": talk(picture="never"), "3": preview(["2", 0]), **painted("2")}
    entry, _ = executed(server, prompt)
    assert "GILL wrote no picture" in readout(entry)
    assert "15" not in entry["outputs"]
    assert entry["outputs"]["3"]["text"][0]
    forced = {"1": loader(), "2": talk(picture_scale=100000.0), **painted("2")}
    entry, _ = executed(server, forced)
    assert entry["outputs"]["15"]["images"] and "generate" in readout(entry)


def test_pictures_are_retrieved_from_an_index(server: ComfyServer) -> None:
    prompt = {
        "1": loader(),
        "3": node("LLMGA_PictureIndex", gill=["1", 0], folder="", name="host test"),
        "2": talk(picture="always", index=["3", 0], decide=False),
        "4": node("PreviewImage", images=["2", 4]),
        **painted("2"),
    }
    entry, _ = executed(server, prompt)
    assert "pictures in host test" in entry["outputs"]["3"]["text"][0]
    assert "found " in readout(entry) and "there is no decision model" in readout(entry)
    (sha256,) = record(entry)["pieces"][0]["images"]
    shown = {"filename": f"{sha256}.png", "subfolder": "llmga", "type": "temp"}
    assert server.view(shown).startswith(b"\x89PNG")
    assert entry["outputs"]["4"]["images"] and entry["outputs"]["15"]["images"]
    decided = {
        **prompt,
        "1": loader(decision=f"{GILL}-decision.safetensors"),
        "2": talk(picture="always", index=["3", 0]),
    }
    entry, _ = executed(server, decided)
    assert "generate, probability 1.000: the decision model says so" in readout(entry)
    assert "15" in entry["outputs"] and "4" not in entry["outputs"]


def test_the_panel_is_told_where_the_picture_stands(server: ComfyServer) -> None:
    """Words before it, as many as were asked for; the picture that was shown is named, the one that is painted is not."""
    prompt = {
        "1": loader(),
        "2": talk(picture_scale=100000.0, min_tokens=6, image=["3", 0]),
        "3": image(),
        **painted("2"),
    }
    entry, _ = executed(server, prompt)
    told = record(entry)
    words, picture = told["pieces"]
    assert words["text"].strip() and f"said: {words['text'].strip()}" in readout(entry)
    assert picture == {"source": "generate", "probability": 1.0, "images": []} and told["notes"] == []
    *left_out, why = told["remarks"]
    assert why == "generate, probability 1.000: there is no index of pictures to retrieve from"
    assert all(line.startswith("left out: '[IMG0]") for line in left_out)  # behind the first picture
    (sha256,) = told["asked"]["images"]
    assert told["asked"]["text"] == "a red fox in the snow"
    assert server.view({"filename": f"{sha256}.png", "subfolder": "llmga", "type": "temp"})
    entry, _ = executed(server, {**prompt, "2": talk(picture="never")})
    assert [piece.keys() for piece in record(entry)["pieces"]] == [{"text"}]


def test_the_same_inputs_are_cached(server: ComfyServer) -> None:
    prompt = {"1": loader(), "2": talk(temperature=1.5, seed=3), "3": preview(["2", 0])}
    first, _ = executed(server, prompt)
    _, ran = executed(server, prompt)
    assert ran.isdisjoint({"1", "2", "3"})
    other, ran = executed(server, {**prompt, "2": talk(temperature=1.5, seed=4)})
    assert "2" in ran and "1" not in ran
    assert readout(other) != readout(first)


def test_cancel_ends_a_reply_and_the_next_is_as_if_nothing_had_happened(server: ComfyServer) -> None:
    prompt = {"1": loader(), "2": talk(temperature=1.0, seed=5), "3": preview(["2", 0])}
    expected = readout(executed(server, prompt)[0])
    long = {**prompt, "2": talk(temperature=1.0, seed=6, max_tokens=1024, min_tokens=1024)}
    prompt_id = server.queue(long)
    texts: list[str] = []

    def interrupt_at_the_first_words(kind: str, data: Any) -> None:
        if kind == "llmga.text":
            texts.append(data["text"])
            if len(texts) == 1:
                server.interrupt(prompt_id)

    with pytest.raises(PromptInterruptedError):
        server.wait(prompt_id, on_event=interrupt_at_the_first_words)
    assert texts
    server.free()
    assert readout(executed(server, prompt)[0]) == expected


OWN = "the language model's own"


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"2": talk(message="")}, "there is nothing to read"),
        # Its tower is read, and is another one than this GILL was trained with.
        ({"1": loader(vision=OWN)}, "trained for a vision encoder of width 64; 'llmga-mini-random' has 32"),
        ({"2": talk(top_p=0.5)}, "top_p cannot be used at temperature 0"),
        ({"1": loader(vision="none"), "2": talk(image=["3", 0])}, "cannot see pictures"),
        (
            {
                "3": node("LLMGA_PictureIndex", gill=["1", 0], folder="../..", name="x"),
                "2": talk(index=["3", 0]),
            },
            "lies outside",
        ),
        (
            {
                "3": node("LLMGA_PictureIndex", gill=["1", 0], folder="", name="a/b"),
                "2": talk(index=["3", 0]),
            },
            "name must be",
        ),
        ({"1": loader(decision=f"{GILL}.safetensors")}, "is a GILL checkpoint"),
        ({"1": loader(gill=f"{GILL}-decision.safetensors")}, "is the decision model of a GILL"),
        ({"2": talk(message="fox " * 9000)}, "tokens with the reply"),
    ],
)
def test_wrong_input_is_refused_with_its_reason(
    server: ComfyServer, nodes: dict[str, Any], message: str
) -> None:
    prompt = {"1": loader(), "2": talk(picture="always"), "3": image(), "4": preview(["2", 6]), **nodes}
    with pytest.raises(PromptFailedError, match=message):
        server.run(prompt)
