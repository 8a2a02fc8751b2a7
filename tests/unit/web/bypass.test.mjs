// web/js/chat/bypass.js without a page: what a bypassed or muted chat hands on in the prompt that is queued.
import { beforeEach, test } from "node:test";
import assert from "node:assert/strict";
import { app } from "../../../scripts/app.js";
import { passInstructions } from "../js/chat/bypass.js";

const direct = new Map([
  [1, { origin_id: 7, origin_slot: 1, target_id: 9, target_slot: 1 }],
  [2, { origin_id: 7, origin_slot: 0, target_id: 9, target_slot: 2 }],
]);
const rerouted = new Map([
  [3, { origin_id: 7, origin_slot: 1, target_id: 8, target_slot: 0 }],
  [1, { origin_id: 8, origin_slot: 0, target_id: 9, target_slot: 1 }],
]);
const reroute = { id: 8, isVirtualNode: true, inputs: [{ name: "" }], outputs: [{}] };
let prompt;

function graph(mode, links = direct) {
  const chat = {
    id: 7,
    mode,
    comfyClass: "LLMGA_Chat",
    widgets: [{ name: "instruction", value: "a fox" }],
    inputs: [],
    outputs: [{ name: "reply" }, { name: "prompt" }],
  };
  const encode = { id: 9, mode: 0, inputs: [{ name: "clip" }, { name: "text" }, { name: "negative_text" }], outputs: [] };
  const nodes = [chat, encode, reroute];
  chat.graph = app.graph;
  Object.assign(app.graph, { nodes, links, getNodeById: (id) => nodes.find((one) => one.id === Number(id)) });
  prompt = { 9: { inputs: { text: "", negative_text: "blurry" } } };
}

app.graphToPrompt = async () => ({ output: prompt });
passInstructions();

beforeEach(() => graph(0));

test("a chat that is bypassed or muted hands its instruction on as the prompt, and nothing else", async () => {
  for (const mode of [4, 2]) {
    graph(mode);
    assert.deepEqual((await app.graphToPrompt()).output[9].inputs, { text: "a fox", negative_text: "blurry" });
  }
});

test("a chat that runs changes nothing", async () => {
  assert.deepEqual((await app.graphToPrompt()).output[9].inputs, { text: "", negative_text: "blurry" });
});

test("a link that ComfyUI passed through stays", async () => {
  graph(4);
  prompt[9].inputs.text = ["3", 0];
  assert.deepEqual((await app.graphToPrompt()).output[9].inputs.text, ["3", 0]);
});

test("it goes through a reroute", async () => {
  graph(4, rerouted);
  assert.equal((await app.graphToPrompt()).output[9].inputs.text, "a fox");
});
