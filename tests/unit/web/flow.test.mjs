// web/js/chat/flow.js without a page: what hangs on a chat, and where its branch goes.
import { beforeEach, test } from "node:test";
import assert from "node:assert/strict";
import { app } from "../../../scripts/app.js";
import { fedBy, reached, spokenTargets, twin } from "../js/chat/flow.js";

let links;
let made = 100;

class Node {
  constructor(id, inputs, outputs, more = {}) {
    Object.assign(this, { id, mode: 0, pos: [0, 0], size: [200, 100], graph: app.graph, ...more });
    this.inputs = inputs.map((name) => ({ name }));
    this.outputs = outputs.map((name) => ({ name }));
  }

  getInputLink(slot) {
    return [...links.values()].find((one) => one.target_id === this.id && one.target_slot === slot) ?? null;
  }

  getInputNode(slot) {
    return app.graph.getNodeById(this.getInputLink(slot)?.origin_id);
  }

  isInputConnected(slot) {
    return this.getInputLink(slot) !== null;
  }

  connect(slot, target, targetSlot) {
    for (const [id, one] of links) if (one.target_id === target.id && one.target_slot === targetSlot) links.delete(id);
    links.set((made += 1), { origin_id: this.id, origin_slot: slot, target_id: target.id, target_slot: targetSlot });
  }

  clone() {
    return new Node(50, this.inputs.map((one) => one.name), this.outputs.map((one) => one.name), { comfyClass: this.comfyClass });
  }
}

const shows = { constructor: { nodeData: { output_node: true } } };
let nodes;

beforeEach(() => {
  links = new Map();
  nodes = {
    loader: new Node(1, [], ["engine"]),
    chat: new Node(2, ["engine", "history"], ["prompt", "history"], { comfyClass: "LLMGA_Chat" }),
    preview: new Node(3, ["source"], [], shows),
    encode: new Node(4, ["text"], ["positive"]),
    save: new Node(5, ["images", "filename"], [], shows),
    next: new Node(6, ["engine", "history"], ["prompt"], { comfyClass: "LLMGA_Chat", ...shows }),
    other: new Node(7, ["images"], [], shows),
  };
  const all = Object.values(nodes);
  Object.assign(app.graph, { nodes: all, links, getNodeById: (id) => all.find((one) => one.id === id), add: (one) => all.push(one) });
  nodes.loader.connect(0, nodes.chat, 0);
  nodes.chat.connect(0, nodes.preview, 0);
  nodes.chat.connect(0, nodes.encode, 0);
  nodes.encode.connect(0, nodes.save, 0);
  nodes.chat.connect(0, nodes.save, 1);
  nodes.chat.connect(1, nodes.next, 1);
  nodes.next.connect(0, nodes.other, 0);
});

test("a chat reaches what it leads to, but not beyond the next chat", () => {
  const found = reached(nodes.chat);
  for (const name of ["preview", "encode", "save"]) assert.ok(found.has(nodes[name]), name);
  for (const name of ["loader", "other", "chat"]) assert.ok(!found.has(nodes[name]), name);
});

test("sending brings along the texts that hang on the chat alone", () => {
  assert.deepEqual(spokenTargets(nodes.chat), ["2", "3"]); // not the picture, not the next chat
  nodes.preview.mode = 4;
  assert.deepEqual(spokenTargets(nodes.chat), ["2"]);
});

test("a loader knows its chats", () => {
  assert.deepEqual(fedBy(nodes.loader), [nodes.chat]);
  assert.deepEqual(fedBy(nodes.encode), []);
});

test("a branch lies on no other node and takes over what followed", () => {
  nodes.preview.pos = [240, 20];
  nodes.save.pos = [300, 150];
  nodes.other.pos = [900, 900];
  const copy = twin(nodes.chat);
  for (const one of Object.values(nodes)) {
    const [[x, y], [u, v]] = [copy.pos, one.pos];
    assert.ok(x + 200 <= u || u + 200 <= x || y + 100 <= v - 30 || v + 100 <= y - 30, String(one.id));
  }
  assert.equal(copy.getInputNode(0), nodes.loader);
  assert.equal(nodes.encode.getInputLink(0).origin_id, copy.id);
  assert.equal(nodes.next.getInputLink(1).origin_id, copy.id);
});
