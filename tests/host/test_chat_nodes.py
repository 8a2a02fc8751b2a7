"""The chat nodes on a real server: replies, seeds, caches, live text, cancel, and conversations that outlive it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.graphs import chat, checkpoint, endpoint, executed, image, local, node, preview, text_of
from support.openai_server import OpenAIServer
from support.waiting import until

from tools.comfy_client import PromptFailedError, PromptInterruptedError, PromptRejectedError
from tools.comfy_server import ComfyServer


def local_chat(**inputs: Any) -> dict[str, Any]:
    return {"1": local(), "2": chat("1", **inputs), "3": preview(["2", 1])}


def test_the_same_inputs_are_cached_and_another_seed_is_another_reply(server: ComfyServer) -> None:
    warm = {"temperature": 1.5}
    first, _ = executed(server, local_chat(seed=1, **warm))
    again, ran = executed(server, local_chat(seed=1, **warm))
    assert ran.isdisjoint({"1", "2", "3"})
    other, ran = executed(server, local_chat(seed=2, **warm))
    assert "2" in ran and "1" not in ran
    assert text_of(other, "2") != text_of(first, "2")
    server.free()  # some time after its queue is empty
    anew: list[dict[str, Any]] = []

    def has_run_again() -> bool:
        entry, ran = executed(server, local_chat(seed=1, **warm))
        anew.append(entry)
        return {"1", "2"} <= ran

    assert until(has_run_again)
    assert text_of(anew[-1], "2") == text_of(first, "2")


def test_a_picture_changes_the_reply_and_a_mask_changes_the_picture(server: ComfyServer) -> None:
    hole = node("SolidMask", value=1.0, width=64, height=64)
    plain = {"1": local(), "2": image(), "4": chat("1", task="similar", image=["2", 0])}
    holed = {**plain, "3": hole, "4": chat("1", task="inpaint", image=["2", 0], mask=["3", 0])}
    unseen = {"1": local(), "4": chat("1")}
    replies = {text_of(server.run(prompt), "4") for prompt in (plain, holed, unseen)}
    assert len(replies) == 3


def test_the_prompts_of_a_story_run_what_follows_once_each(
    server: ComfyServer, assistant: OpenAIServer
) -> None:
    with assistant.replying("<gen_image> one </gen_image> then <gen_image> two </gen_image>"):
        entry = server.run({"1": endpoint(), "2": chat("1", "a tale", task="story"), "3": preview(["2", 2])})
    assert entry["outputs"]["3"]["text"] == ["one", "two"]


def test_the_hosts_own_language_model_answers_over_two_turns(server: ComfyServer) -> None:
    prompt = {
        "1": node("LLMGATest_HostLanguageModel"),
        "2": node("LLMGA_HostLanguageModel", clip=["1", 0]),
        "3": chat("2", max_new_tokens=8),
        "4": chat("2", "and a bear", max_new_tokens=8, history=["3", 4], temperature=0.9, seed=5),
    }
    entry = server.run(prompt)
    assert text_of(entry, "3") and text_of(entry, "4")


def test_a_text_encoder_is_no_language_model(server: ComfyServer) -> None:
    prompt = {"1": checkpoint(), "2": node("LLMGA_HostLanguageModel", clip=["1", 1]), "3": chat("2")}
    with pytest.raises(PromptFailedError, match="clip is a text encoder that cannot write"):
        server.run(prompt)


def test_live_text_grows_and_reaches_the_asking_client_alone(
    server: ComfyServer, assistant: OpenAIServer
) -> None:
    stranger = server.connect("somebody-else")
    texts: list[str] = []
    reply = "<gen_image> " + "a very slow fox, " * 20 + "</gen_image>"
    with assistant.replying(reply, pace=0.02):
        server.run(
            {"1": endpoint(), "2": chat("1", "live", seed=11)},
            on_event=lambda kind, data: texts.append(data["text"]) if kind == "llmga.text" else None,
        )
    assert len(texts) >= 3
    assert all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:], strict=False))
    assert reply.startswith(texts[-1])
    stranger.settimeout(0.5)
    heard = list(messages(stranger))
    stranger.close()
    assert heard, "the stranger hears the server's status messages"
    assert not [message for message in heard if "llmga" in message]


def messages(socket: Any):
    import websocket

    try:
        while True:
            message = socket.recv()
            yield message if isinstance(message, str) else message.decode("utf-8", "replace")
    except websocket.WebSocketTimeoutException:
        return


@pytest.mark.parametrize("behaviour", ["silent", "drip", "drip_head"])
def test_cancel_ends_a_wait_for_an_endpoint(
    server: ComfyServer, assistant: OpenAIServer, behaviour: str
) -> None:
    assistant.behave(behaviour)
    prompt_id = server.queue({"1": endpoint(), "2": chat("1", f"wait for {behaviour}")})
    assert until(lambda: assistant.active)
    server.interrupt(prompt_id)
    with pytest.raises(PromptInterruptedError):  # and not the error of the endpoint's deadline
        server.wait(prompt_id)
    assistant.behave("normal")
    assert server.run({"1": endpoint(), "2": chat("1", "after the cancel")})


def test_cancel_ends_a_local_reply_and_the_next_is_as_if_nothing_had_happened(server: ComfyServer) -> None:
    expected = text_of(server.run(local_chat(seed=21)), "2")
    long = local_chat(seed=22, temperature=1.0, max_new_tokens=1900)
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
    assert text_of(server.run(local_chat(seed=21)), "2") == expected


def three_turns(last: dict[str, Any]) -> dict[str, Any]:
    """Two turns with a picture each, saved; ``last`` is the third."""
    return {
        "1": local(),
        "10": image(),
        "11": node("ImageInvert", image=["10", 0]),
        "2": chat("1", "one", task="describe", image=["10", 0]),
        "3": chat("1", "two", task="similar", image=["11", 0], history=["2", 4]),
        "4": node("LLMGA_SaveHistory", history=["3", 4], name="three turns"),
        **last,
    }


def test_a_conversation_outlives_the_server(server: ComfyServer) -> None:
    third = {"temperature": 0.8, "seed": 7, "task": "chat"}
    unbroken = server.run(three_turns({"5": chat("1", "three", history=["3", 4], **third)}))
    server.restart()
    resumed = {
        "1": local(),
        "2": node("LLMGA_LoadHistory", name="three turns"),
        "5": chat("1", "three", history=["2", 0], **third),
    }
    assert text_of(server.run(resumed), "5") == text_of(unbroken, "5")


def test_loading_again_sees_what_was_saved_since(server: ComfyServer) -> None:
    def save(instruction: str) -> None:
        server.run(
            {
                "1": local(),
                "2": chat("1", instruction),
                "3": node("LLMGA_SaveHistory", history=["2", 4], name="changing"),
            }
        )

    loaded = {"1": node("LLMGA_LoadHistory", name="changing"), "2": preview(["1", 0])}
    save("one thing")
    before = text_of(server.run(loaded), "2")
    save("another thing")
    after = text_of(server.run(loaded), "2")
    assert "one thing" in before and "another thing" in after


def test_a_saved_history_is_served_to_nobody(server: ComfyServer) -> None:
    import urllib.error

    server.run({**local_chat(), "3": node("LLMGA_SaveHistory", history=["2", 4], name="private")})
    saved = server.base / "user" / "__llmga" / "histories" / "private.json"
    assert json.loads(saved.read_text(encoding="utf-8"))["format"] == "llmga-conversation"
    with pytest.raises(urllib.error.HTTPError):
        server.request("/userdata/..%2F__llmga%2Fhistories%2Fprivate.json")


def per_picture(**inputs: Any) -> dict[str, Any]:
    widgets = {
        "instruction": "",
        "task": "similar",
        "seed": 5,
        "temperature": 1.5,
        "max_new_tokens": 12,
        "policy": "whole_reply",
    }
    return node("LLMGA_ChatPerPicture", engine=["1", 0], **{**widgets, **inputs})


def test_every_picture_of_a_batch_gets_the_reply_that_it_gets_alone(server: ComfyServer) -> None:
    """Seeds go up, and what follows runs once for each."""
    batch = {
        "1": local(),
        "2": image(),
        "3": node("ImageInvert", image=["2", 0]),
        "4": node("ImageBatch", image1=["2", 0], image2=["3", 0]),
    }
    entry = server.run({**batch, "5": per_picture(image=["4", 0]), "6": preview(["5", 1])})
    replies = entry["outputs"]["5"]["text"]
    assert len(replies) == len(entry["outputs"]["6"]["text"]) == 2 and replies[0] != replies[1]
    for i, picture in enumerate(("2", "3")):
        alone = {"1": local(), "2": batch["2"], "3": batch["3"]}
        chatted = chat(
            "1", "", task="similar", image=[picture, 0], seed=5 + i, temperature=1.5, max_new_tokens=12
        )
        words, _, remark = replies[i].rpartition("\n\n")
        assert text_of(server.run({**alone, "7": chatted}), "7") == words
        assert remark.startswith("The reply ended at 'max_new_tokens'")


def test_pictures_need_what_their_task_needs(server: ComfyServer) -> None:
    shown = {"1": local(), "2": image()}
    with pytest.raises(PromptRejectedError, match="connect a mask"):
        server.run({**shown, "3": per_picture(task="inpaint", image=["2", 0])})
    with pytest.raises(
        PromptFailedError, match="connect a mask"
    ):  # an empty mask is known to be none when it runs
        server.run({**shown, "3": per_picture(task="inpaint", image=["2", 0], mask=["2", 1])})
    with pytest.raises(PromptRejectedError, match="'instruction' is empty"):
        server.run({**shown, "3": per_picture(task="chat", image=["2", 0])})


def test_a_server_frees_its_memory_after_the_last_item_of_a_list(
    server: ComfyServer, assistant: OpenAIServer
) -> None:
    """Two pictures, so two instructions, so the chat runs twice; then the next node begins."""
    path = server.base / "user" / "__llmga" / "endpoints.json"
    records = json.loads(path.read_text(encoding="utf-8"))["endpoints"]
    more = {**records, "unloading": {**records["demo"], "unload": "ollama"}}
    path.write_text(json.dumps({"endpoints": more}), encoding="utf-8")
    pictures = {
        "1": local(),
        "2": image(),
        "3": node("ImageInvert", image=["2", 0]),
        "4": node("ImageBatch", image1=["2", 0], image2=["3", 0]),
        "5": per_picture(image=["4", 0]),
        "6": node("LLMGA_Endpoint", endpoint="unloading"),
    }
    said: Any = ["5", 0]
    before = len(assistant.requests)
    entry = server.run({**pictures, "7": chat("6", said), "8": preview(["7", 1])})
    assert len(entry["outputs"]["8"]["text"]) == 2
    asked = [request.path for request in assistant.requests[before:]]
    assert asked == ["/v1/chat/completions"] * 2 + ["/api/generate"]
    assert assistant.requests[-1].body == {"model": "demo", "keep_alive": 0}
    path.write_text(json.dumps({"endpoints": records}), encoding="utf-8")


def test_lookup_changes_no_greedy_reply(server: ComfyServer) -> None:
    said = [
        text_of(server.run({"1": local(lookup=ahead), "2": chat("1", "a fox and a fox and a fox")}), "2")
        for ahead in (0, 8)
    ]
    assert said[0] == said[1] != ""
