"""``llmga.client`` without a server: changed values, errors said once. The rest is tested on real servers."""

from __future__ import annotations

import pytest

from llmga.client import PromptRejectedError, chat_of, with_values

PROMPT = {
    "1": {"class_type": "LLMGA_Chat", "inputs": {"seed": 0}, "_meta": {"title": "First turn"}},
    "2": {"class_type": "KSampler", "inputs": {"seed": 0}},
}


def test_values_are_changed_by_title_class_or_id_in_a_copy() -> None:
    changed = with_values(PROMPT, {"First turn.seed": 3, "KSampler.seed": 4, "1.instruction": "a.b"})
    assert changed["1"]["inputs"] == {"seed": 3, "instruction": "a.b"} and changed["2"]["inputs"] == {
        "seed": 4
    }
    assert PROMPT["1"]["inputs"] == {"seed": 0}
    for wrong in ("Second turn.seed", "seed", "1."):
        with pytest.raises(
            ValueError, match=r"must be 'node.input' with one of the nodes First turn, KSampler"
        ):
            with_values(PROMPT, {wrong: 1})


def test_names_may_have_points() -> None:
    """As nodes and inputs of ComfyUI's own templates do; the longest name of a node counts."""
    prompt = {
        "57:3": {"class_type": "ResizeImageMaskNode", "inputs": {"resize_type.width": 8}},
        "4": {"class_type": "ComfyMathExpression", "inputs": {}, "_meta": {"title": "LTX-2.5"}},
        "5": {"class_type": "Note", "inputs": {}, "_meta": {"title": "LTX-2"}},
    }
    values = {"ResizeImageMaskNode.resize_type.width": 64, "57:3.resize_type": "scale dimensions"}
    changed = with_values(prompt, {**values, "LTX-2.5.values.a": 1, "LTX-2.text": "x"})
    assert changed["57:3"]["inputs"] == {"resize_type.width": 64, "resize_type": "scale dimensions"}
    assert changed["4"]["inputs"] == {"values.a": 1} and changed["5"]["inputs"] == {"text": "x"}


def test_what_a_chat_said_is_found() -> None:
    entry = {
        "outputs": {
            "2": {"llmga_chat": [{"prompts": ["a"]}]},
            "3": {"llmga_chat": [{"prompts": ["b"]}]},
            "4": {},
        }
    }
    assert chat_of(entry)["prompts"] == ["b"] and chat_of(entry, "2")["prompts"] == ["a"]
    with pytest.raises(ValueError, match="no LLMGA Chat 9 is among the outputs 2, 3, 4"):
        chat_of(entry, "9")


def test_a_nodes_own_check_is_said_once() -> None:
    own = {"type": "custom_validation_failed", "message": "Custom validation failed for node"}
    errors = [{**own, "details": f"{name} - the task needs words"} for name in ("task", "instruction")]
    errors.append({"type": "value_not_in_list", "message": "Value not in list", "details": "policy: 'x'"})
    body = {"error": {"message": "failed"}, "node_errors": {"3": {"class_type": "C", "errors": errors}}}
    said = "failed; node 3 (C): the task needs words; node 3 (C): Value not in list: policy: 'x'"
    assert str(PromptRejectedError(400, body)) == said
