// web/js/chat/state.js without a page: what a chat node's widgets hold becomes turns, and is sent on.
import { beforeEach, test } from "node:test";
import assert from "node:assert/strict";
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { isHere, isMeant, watchPrompts } from "../js/chat/prompts.js";
import { chatOf, noteEnd } from "../js/chat/state.js";
import { ANSWERED, ASKED, node, queueing, RECORD, SECOND, value } from "./chat.mjs";

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

test("the end of another prompt is not the end of this one", async () => {
  for (const other of ["painting", "another tab's"]) {
    const chat = chatOf(node());
    const answer = queueing("mine");
    const sent = chat.send("hello");
    await new Promise(setImmediate);
    chat.stop(other); // before the page knows the id
    assert.equal(chat.busy, true);
    answer();
    assert.equal(await sent, true);
    chat.stop(other);
    chat.setText("of the other", other);
    chat.setOutput({ llmga_chat: [RECORD] }, other);
    assert.deepEqual(chat.live, { text: "", state: "waiting" });
    assert.equal(await chat.send("hello"), false); // it is not sent twice
    chat.setText("mine so far", "mine");
    chat.stop(other);
    assert.equal(chat.busy, true);
    chat.stop("mine");
    assert.deepEqual(chat.live, { text: "mine so far", state: "stopped" });
  }
});

test("a lost connection ends all, and what was waited for can be asked for later", async () => {
  const chat = chatOf(node({ seed: 4, edited_reply: "" }));
  chat.setOutput({ llmga_chat: [RECORD] });
  queueing("mine")();
  await chat.regenerate();
  chat.lose();
  chat.lose(); // each try to connect anew
  assert.equal(chat.live, null);
  assert.deepEqual(chat.turns, [ASKED, ANSWERED]);
  assert.equal(value(chat.node, "seed"), 5); // the prompt may go on
  assert.deepEqual(chat.missed, ["mine"]);
  chat.setOutput({ llmga_chat: [SECOND] }, "mine");
  assert.equal(chat.replies.length, 2);
});

test("a prompt that ends before its id is known has ended", async () => {
  const chat = chatOf(node());
  const answer = queueing("quick");
  const sent = chat.send("hello");
  await new Promise(setImmediate);
  noteEnd("quick");
  chat.stop("quick");
  answer();
  await sent;
  assert.equal(chat.live, null);
});

test("an output that comes before the id is kept for it, and another's is not", async () => {
  for (const [of, kept] of [["fast", true], ["slow", false]]) {
    const chat = chatOf(node());
    const answer = queueing("fast");
    const sent = chat.send("hello");
    await new Promise(setImmediate);
    chat.setOutput({ llmga_chat: [RECORD] }, of);
    answer();
    await sent;
    assert.equal(chat.last !== null, kept);
    assert.equal(chat.busy, !kept);
  }
});

test("Run with a draft waits for its own prompt, and Stop ends that one alone", async () => {
  const chat = chatOf(node({ task: "refine" }));
  chat.setOutput({ llmga_chat: [RECORD] });
  chat.draft = "at night";
  const answer = queueing("mine");
  chat.takeDraft(); // ComfyUI's Run
  const run = app.queuePrompt(0, 1);
  const posted = [];
  api.fetchApi = async (path, { body }) => posted.push([path, JSON.parse(body)]);
  chat.stop("a painting of another tab");
  assert.equal(chat.busy, true);
  await chat.halt(); // the page does not know the prompt yet
  assert.deepEqual(posted, []);
  answer();
  await run;
  assert.deepEqual(posted, [["/queue", { delete: ["mine"] }], ["/interrupt", { prompt_id: "mine" }]]);
});

test("a Run that is refused leaves no chat waiting", async () => {
  const chat = chatOf(node({ task: "refine" }));
  chat.setOutput({ llmga_chat: [RECORD] });
  chat.draft = "at night";
  const answer = queueing("mine");
  chat.takeDraft();
  const run = app.queuePrompt(0, 1);
  answer(new Error("a loader has no model"));
  await assert.rejects(run);
  assert.equal(chat.busy, false);
  assert.equal(value(chat.node, "instruction"), "at night");
});

test("who is not in a prompt, or not among its targets, does not wait for it", async () => {
  for (const [ids, targets] of [[["8"], undefined], [["7", "8"], ["8"]]]) {
    const chat = chatOf(node());
    const answer = queueing("other", ids);
    chat.await();
    const run = app.queuePrompt(0, 1, targets);
    answer();
    await run;
    assert.equal(chat.busy, false);
  }
});

test("each prompt of a batch is one that the chat waits for", async () => {
  const chat = chatOf(node());
  let count = 0;
  queueing("first");
  const answers = ["first", "second"];
  api.queuePrompt = async () => ({ prompt_id: answers[count++] });
  app.queuePrompt = async () => {
    for (let i = 0; i < 2; i++) await api.queuePrompt(0, { output: { 7: {} } });
  };
  watchPrompts();
  chat.await();
  await app.queuePrompt(0, 2);
  assert.deepEqual(chat.prompts, answers);
});

test("what comes of a prompt is about the workflow that it was queued from", async () => {
  const workflow = { activeWorkflow: { path: "a" } };
  app.extensionManager = { workflow };
  const chat = chatOf(node());
  queueing("of a")();
  await chat.send("hello");
  assert.equal(isHere("of a"), true);
  workflow.activeWorkflow = { path: "b" };
  assert.equal(isHere("of a"), false);
  assert.equal(isHere("of another page"), true);
  api.dispatchEvent(Object.assign(new Event("execution_start"), { detail: { prompt_id: "of a" } }));
  assert.equal(isHere(), false);
  workflow.activeWorkflow = { path: "a" };
  assert.equal(isHere(), true);
  app.graph.id = "of another that is being opened";
  assert.equal(isHere(), false);
  delete app.graph.id;
  delete app.extensionManager;
});

test("a loader that works for one chat says nothing of another that shares it", async () => {
  const chat = chatOf(node());
  const other = { ...chat.node, id: 8 };
  app.graph.nodes.push(other);
  queueing("for one", ["7", "8"])();
  await chat.send("hello");
  assert.deepEqual([chat.node, other].map((one) => isMeant(one, "for one")), [true, false]);
  assert.equal(isMeant(other, "of another page"), true);
});

test("a regenerated reply that does not come leaves the one before, and what made it", async () => {
  const chat = chatOf(node({ seed: 4, edited_reply: "" }));
  chat.setOutput({ llmga_chat: [RECORD] });
  const answer = queueing("mine");
  const asked = chat.regenerate();
  assert.deepEqual([value(chat.node, "seed"), chat.turns], [5, []]);
  answer();
  await asked;
  chat.stop("mine"); // taken out of the queue, or failed
  assert.deepEqual(chat.turns, [ASKED, ANSWERED]);
  assert.equal(value(chat.node, "seed"), 4);
});

test("an output that the page kept counts for the question that stands here, and once", () => {
  const chat = chatOf(node({ instruction: "a fox", edited_reply: "" }));
  const output = { llmga_chat: [RECORD] };
  chat.restoreOutput(output); // a finished job was opened
  assert.deepEqual(chat.turns, [ASKED, ANSWERED]);
  chat.setPrompts(["a blue fox"]);
  chat.restoreOutput(output); // another workflow was open for a while
  assert.deepEqual(chat.last.prompts, ["a blue fox"]);
  chat.settle("at night", 2);
  chat.restoreOutput(output); // Undo
  assert.equal(chat.last, null);
  chat.settle("a fox", 2);
  chat.clear();
  chat.restoreOutput(output);
  assert.deepEqual(chat.turns, []);
});

test("Run with a draft waits until the pictures of the turns before are kept", async () => {
  const images = ["a".repeat(64)];
  const chat = chatOf(node());
  chat.await();
  chat.draft = "and now"; // while the reply is written
  chat.prompts = null;
  chat.setOutput({ llmga_chat: [{ ...RECORD, exchange: [{ ...ASKED, images }, ANSWERED] }] });
  const steps = [];
  const { fetch } = globalThis;
  globalThis.fetch = async () => ({ ok: true, blob: async () => new Blob(["png"]) });
  api.fetchApi = async (path) => {
    await new Promise(setImmediate);
    steps.push(path);
    return { ok: true };
  };
  api.queuePrompt = async () => (steps.push("queued"), { prompt_id: "mine" });
  app.queuePrompt = async () => api.queuePrompt(0, { output: { 7: {} } });
  watchPrompts();
  chat.takeDraft();
  await app.queuePrompt(0, 1);
  assert.deepEqual(steps, ["/upload/image", "queued"]);
  globalThis.fetch = fetch;
});

test("a picture that cannot be kept is said with its reason", async () => {
  const said = [];
  app.extensionManager = { toast: { add: ({ detail }) => said.push(detail) } };
  const images = ["a".repeat(64)];
  const { fetch } = globalThis;
  for (const [shown, status] of [[404, 200], [200, 413]]) {
    const chat = chatOf(node());
    chat.setOutput({ llmga_chat: [{ ...RECORD, exchange: [{ ...ASKED, images }, ANSWERED] }] });
    globalThis.fetch = async () => ({ ok: shown === 200, status: shown, blob: async () => new Blob(["png"]) });
    api.fetchApi = async () => ({ ok: false, status, statusText: "Too Large" });
    assert.equal(await chat.send("more"), false);
  }
  globalThis.fetch = fetch;
  delete app.extensionManager;
  assert.match(said[0], /is gone/);
  assert.match(said[1], /HTTP 413 Too Large/);
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

test("a stop of one's own takes the prompt out of the queue and interrupts it", async () => {
  const chat = chatOf(node());
  const posted = [];
  api.fetchApi = async (path, { body }) => posted.push([path, JSON.parse(body)]);
  chat.live = { text: "", state: "waiting" };
  chat.prompts = ["mine"];
  await chat.halt();
  assert.deepEqual(posted, [["/queue", { delete: ["mine"] }], ["/interrupt", { prompt_id: "mine" }]]);
});

test("a model that is loaded is said with its size, and a failed run shows the reply before again", () => {
  const chat = chatOf(node());
  chat.setOutput({ llmga_chat: [RECORD] });
  chat.setLoading(14.1, "mine");
  assert.deepEqual(chat.live, { text: "", state: "loading", gigabytes: 14.1 });
  chat.stop("mine");
  assert.deepEqual(chat.turns, [ASKED, ANSWERED]);
});
