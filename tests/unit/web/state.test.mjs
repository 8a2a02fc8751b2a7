// web/js/chat/state.js without a page: what a chat node's widgets hold becomes turns, and is sent on.
import { beforeEach, test } from "node:test";
import assert from "node:assert/strict";
import { app } from "../../../scripts/app.js";
import { chatOf } from "../js/chat/state.js";

const ASKED = { role: "user", text: "a fox", images: [], task: "refine", instruction: "a fox" };
const ANSWERED = { role: "assistant", text: "<gen_image> a red fox </gen_image>", images: [] };
const RECORD = { exchange: [ASKED, ANSWERED], prompts: ["a red fox"], earlier: [], omitted: 0 };

function node(values = {}) {
  const all = { transcript: "", instruction: "", seed: 0, task: "chat", ...values };
  const widgets = Object.entries(all).map(([name, value]) => ({ name, value }));
  widgets.find((one) => one.name === "task").options = { values: ["chat", "refine"] };
  const made = { id: 7, graph: app.graph, widgets, inputs: [], properties: {} };
  app.graph.nodes = [made];
  return made;
}

const value = (owner, name) => owner.widgets.find((one) => one.name === name).value;

beforeEach(() => {
  app.queued = [];
  app.nodeOutputs = {};
});

test("a transcript is turns that alternate, or it is refused", () => {
  assert.deepEqual(chatOf(node()).settled, []);
  assert.deepEqual(chatOf(node({ transcript: JSON.stringify([ASKED, ANSWERED]) })).settled, [ASKED, ANSWERED]);
  for (const wrong of ["{", "3", '{"a": 1}', "[null, null]", JSON.stringify([ASKED]), JSON.stringify([ANSWERED, ASKED])]) {
    assert.equal(chatOf(node({ transcript: wrong })).settled, null, wrong);
  }
});

test("a picture is named by its hash alone", () => {
  const images = ["../secret", 3, "a".repeat(64)];
  const chat = chatOf(node({ transcript: JSON.stringify([{ ...ASKED, images }, ANSWERED]) }));
  assert.deepEqual(chat.settled[0].images, ["a".repeat(64)]);
});

test("an output becomes the last exchange, and nonsense does not", () => {
  const chat = chatOf(node());
  for (const wrong of [undefined, {}, { llmga_chat: [] }, { llmga_chat: [{ exchange: [ANSWERED, ASKED] }] }]) {
    chat.setOutput(wrong);
    assert.deepEqual(chat.turns, []);
  }
  chat.setOutput({ llmga_chat: [RECORD] });
  assert.deepEqual(chat.turns, [ASKED, ANSWERED]);
  assert.deepEqual(chat.node.properties.llmga_chat, RECORD);
});

test("going on settles the last exchange and runs this node alone", async () => {
  const chat = chatOf(node());
  chat.setOutput({ llmga_chat: [RECORD] });
  assert.equal(await chat.send("bigger"), true);
  assert.deepEqual(JSON.parse(value(chat.node, "transcript")), [ASKED, ANSWERED]);
  assert.equal(value(chat.node, "instruction"), "bigger");
  assert.deepEqual(app.queued, [["7"]]);
  assert.equal(await chat.send("again"), false); // while it runs
});

test("an edited turn replaces all that followed, and keeps its task", async () => {
  const chat = chatOf(node({ transcript: JSON.stringify([ASKED, ANSWERED]) }));
  assert.equal(await chat.send("a cat", 0), true);
  assert.equal(value(chat.node, "transcript"), "");
  assert.equal(value(chat.node, "task"), "refine");
});

test("regenerating takes the next seed and forgets the reply", async () => {
  const chat = chatOf(node({ seed: 4 }));
  chat.setOutput({ llmga_chat: [RECORD] });
  await chat.regenerate();
  assert.equal(value(chat.node, "seed"), 5);
  assert.deepEqual(chat.turns, []);
});

test("a stop keeps what was written", () => {
  const chat = chatOf(node());
  chat.setText("half");
  chat.stop();
  assert.deepEqual(chat.live, { text: "half", state: "stopped" });
  assert.equal(chat.busy, false);
});

test("a follow-up is a change of the picture, unless its task was chosen or goes on", async () => {
  const tasks = { refine: "change", poster: "change", inpaint: "change", chat: "chat", edit: "edit", story: "story", describe: "describe" };
  for (const [task, expected] of Object.entries(tasks)) {
    const made = node({ task });
    made.widgets.find((one) => one.name === "task").options.values = [...Object.keys(tasks), "change"];
    const chat = chatOf(made);
    chat.setOutput({ llmga_chat: [{ ...RECORD, exchange: [{ ...ASKED, task }, ANSWERED] }] });
    await chat.send("make it night");
    assert.equal(value(made, "task"), expected, task);
  }
});

test("a task that was chosen since the last turn stays, and a first turn keeps its own", async () => {
  const chosen = node({ task: "refine" });
  chosen.widgets.find((one) => one.name === "task").options.values.push("change", "logo");
  chatOf(chosen).setOutput({ llmga_chat: [{ ...RECORD, exchange: [{ ...ASKED, task: "logo" }, ANSWERED] }] });
  await chatOf(chosen).send("now a fox");
  assert.equal(value(chosen, "task"), "refine");
  const first = node({ task: "refine" });
  await chatOf(first).send("a fox");
  assert.equal(value(first, "task"), "refine");
});
