"""Repetition in a graph: what stands between two nodes runs again, as copies that ComfyUI adds while it runs.

ComfyUI calls it node expansion. The copies are shown as the nodes that they were made from, and cached as any node is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from comfy_execution.graph_utils import GraphBuilder, is_link


@dataclass(frozen=True)
class Repeated:
    """The nodes that run again.

    Attributes:
        start, end: ids of the first and the last node.
        between: ids of all that depend on the first and that the last does not come before: also a preview on the side, but
            nothing that belongs to another repetition from the same first node.
        nodes: of every id the entry in the prompt: "class_type" and "inputs".
    """

    start: str
    end: str
    between: tuple[str, ...]
    nodes: dict[str, dict[str, Any]]


def find_repeated(prompt: Any, end: str, link: str, start_class: str) -> Repeated:
    """What lies between a node and the one that its input ``link`` comes from.

    Args:
        prompt: the host's DynamicPrompt.
        start_class: the class that the first node must have.

    Raises:
        ValueError: the input does not come from such a node.
    """
    source = prompt.get_node(end)["inputs"].get(link)
    start = source[0] if is_link(source) else ""
    if not start or prompt.get_node(start)["class_type"] != start_class:
        raise ValueError(
            f"{link} must come straight from {start_class}, with no node between; got "
            f"{prompt.get_node(start)['class_type'] if start else 'no link'}"
        )
    parent = prompt.get_parent_node_id(end)
    beside = [one for one in sorted(prompt.all_node_ids()) if prompt.get_parent_node_id(one) == parent]
    nodes = {one: prompt.get_node(one) for one in beside}
    between = _dependents(nodes, start) - _dependents(nodes, end) - {end}
    for other in [one for one in between if nodes[one]["class_type"] == nodes[end]["class_type"]]:
        following = _dependents(nodes, other)
        if end not in following:  # else it is a repetition inside of this one
            between -= {other, *following}
    return Repeated(start, end, tuple(one for one in beside if one in between), nodes)


def _dependents(nodes: dict[str, dict[str, Any]], source: str) -> set[str]:
    """All that a node comes before, without itself."""
    following: dict[str, set[str]] = {}
    for one, node in nodes.items():
        for before in _sources(node):
            following.setdefault(before, set()).add(one)
    found: set[str] = set()
    ahead = [source]
    while ahead:
        new = following.get(ahead.pop(), set()) - found
        found |= new
        ahead += new
    return found


def _sources(node: dict[str, Any]) -> Iterable[str]:
    return (value[0] for value in node["inputs"].values() if is_link(value))


def run_again(
    prompt: Any, repeated: Repeated, link: str, slot: int, **changed: Any
) -> tuple[dict[str, Any], Callable[[int], list[Any]]]:
    """The graph in which everything runs once more, and the last copy, of which the results are taken.

    The state goes on through a copy of the last node with the inputs ``changed``, which ends this round: its output
    ``slot`` is the input ``link`` of the next round's first node.

    Returns:
        The graph for ``NodeOutput(expand=…)``, and a function from an output's number to its link.
    """
    builder = GraphBuilder()
    originals = (repeated.start, *repeated.between, repeated.end)
    names = {one: prompt.get_display_node_id(one) for one in originals}
    if len(set(names.values())) < len(names):  # another node's expansion shows several as one
        names = {one: one for one in originals}

    def copied(one: str, name: str) -> Any:
        node = builder.node(repeated.nodes[one]["class_type"], name, **repeated.nodes[one]["inputs"])
        node.set_override_display_id(prompt.get_display_node_id(one))
        return node

    this_round = copied(repeated.end, f"{names[repeated.end]}.round")
    this_round.inputs = {**this_round.inputs, **changed}
    copies = {one: copied(one, name) for one, name in names.items()}
    for copy in copies.values():
        copy.inputs = {
            name: copies[value[0]].out(value[1]) if is_link(value) and value[0] in copies else value
            for name, value in copy.inputs.items()
        }
    copies[repeated.start].set_input(link, this_round.out(slot))
    return builder.finalize(), copies[repeated.end].out
