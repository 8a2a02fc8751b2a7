// What a chat's outputs lead to: the pictures that come of it, the texts that hang on it, and a place for its branch.
import { CHAT, chatNodes, executionId, linksFrom } from "./graph.js";
import { app } from "../../../../scripts/app.js";

const GAP = 40;
const TITLE = 30; // of a node, above its place
const MUTED = [2, 4]; // never, bypassed

// Every node that a chat's outputs reach, in and out of subgraphs, up to the next of its kind, whose pictures are its own.
// `slots` are the outputs that count, by default all.
export function reached(chat, slots = null) {
  const found = new Set();
  const open = [chat];
  while (open.length) {
    const node = open.pop();
    if (found.has(node) || (node !== chat && node.comfyClass === chat.comfyClass)) continue;
    found.add(node);
    if (node.subgraph) open.push(...node.subgraph.nodes);
    for (const [slot] of (node.outputs ?? []).entries()) {
      if (node === chat && slots && !slots.includes(slot)) continue;
      for (const link of linksFrom(node.graph, node, slot)) {
        const target = node.graph.getNodeById(link.target_id);
        open.push(...(target ? [target] : parents(node.graph)));
      }
    }
  }
  found.delete(chat);
  return found;
}

// The nodes that show a subgraph.
function parents(graph) {
  const all = [app.rootGraph ?? app.graph, ...((app.rootGraph ?? app.graph)?.subgraphs?.values?.() ?? [])];
  return all.flatMap((one) => one.nodes.filter((node) => node.subgraph === graph));
}

// Execution ids of a chat and of the output nodes that need nothing else, such as a preview of its prompt: they are brought
// up to date when the language model alone is asked.
export function spokenTargets(chat) {
  const texts = (chat.outputs ?? []).flatMap((_, slot) =>
    linksFrom(chat.graph, chat, slot).map((link) => chat.graph.getNodeById(link.target_id)),
  );
  const alone = texts.filter((node) => node && node.constructor?.nodeData?.output_node && hangsOn(node, chat));
  return [chat, ...new Set(alone)].map((node) => String(executionId(node)));
}

function hangsOn(node, chat) {
  if (node.comfyClass === CHAT || MUTED.includes(node.mode)) return false;
  return node.inputs.every((_, slot) => !node.isInputConnected(slot) || node.getInputNode(slot) === chat);
}

// The chats that a loader's engine goes to.
export function fedBy(loader) {
  return chatNodes().filter((chat) => {
    const slot = chat.inputs?.findIndex((input) => input.name === "engine") ?? -1;
    return slot >= 0 && chat.graph && chat.isInputConnected(slot) && chat.getInputNode(slot) === loader;
  });
}

// A second node in a free place, with the same widgets and the same connections into it; what followed the first follows it.
// In a subgraph, some connections are with the subgraph's own inputs and outputs.
export function twin(node) {
  const graph = node.graph;
  const copy = node.clone();
  copy.pos = freePlace(graph, node);
  graph.add(copy);
  copy.setSize?.([...node.size]);
  node.inputs.forEach((_, slot) => {
    const link = node.getInputLink(slot);
    const origin = link && graph.getNodeById(link.origin_id);
    if (origin) origin.connect(link.origin_slot, copy, slot);
    else if (link) graph.inputs?.[link.origin_slot]?.connect(copy.inputs[slot], copy);
  });
  node.outputs?.forEach((_, slot) => {
    for (const link of linksFrom(graph, node, slot)) {
      const target = graph.getNodeById(link.target_id);
      if (target) copy.connect(slot, target, link.target_slot);
      else graph.outputs?.[link.target_slot]?.connect(copy.outputs[slot], copy);
    }
  });
  return copy;
}

// To the right of a node, then further down, where a node of its size lies on no other.
function freePlace(graph, node) {
  const [width, height] = node.size;
  const boxes = graph.nodes.map((one) => [one.pos[0], one.pos[1] - TITLE, one.size[0], one.size[1] + TITLE]);
  const left = node.pos[0] + width + GAP;
  let top = node.pos[1];
  for (;;) {
    const hit = boxes.find(([x, y, w, h]) => left < x + w && x < left + width && top - TITLE < y + h && y < top + height);
    if (!hit) return [left, top];
    top = hit[1] + hit[3] + GAP + TITLE;
  }
}

