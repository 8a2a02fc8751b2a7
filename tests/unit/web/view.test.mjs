// The panel's view, composer and sidebar on as much of a page as they need: what a person is in the middle of stays.
import { beforeEach, test } from "node:test";
import assert from "node:assert/strict";
import "./page.mjs";
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { picture } from "../js/chat/dom.js";
import { follow, refresh, sidebarTab } from "../js/chat/sidebar.js";
import { chatOf } from "../js/chat/state.js";
import { ChatView } from "../js/chat/view.js";
import { Talk } from "../js/gill/talk.js";
import { GILLView } from "../js/gill/view.js";

const ASKED = { role: "user", text: "a fox", images: [], task: "refine", instruction: "a fox" };
const ANSWERED = { role: "assistant", text: "<gen_image> a red fox </gen_image>", images: [] };
const RECORD = { exchange: [ASKED, ANSWERED], prompts: ["a red fox"], earlier: [], omitted: 0, thought: "hm" };
const PICTURE = { filename: "a.png", subfolder: "", type: "output" };

function node(id = 7, values = {}) {
  const all = { transcript: "", instruction: "", seed: 0, task: "chat", edited_reply: "", ...values };
  const widgets = Object.entries(all).map(([name, value]) => ({ name, value }));
  return { id, title: "Chat", comfyClass: "LLMGA_Chat", graph: app.graph, widgets, inputs: [], properties: {} };
}

function answered(id, record = RECORD) {
  const chat = chatOf(node(id));
  chat.setOutput({ llmga_chat: [record] });
  return chat;
}

const key = (name, more = {}) => Object.assign(new Event("keydown", { cancelable: true }), { key: name, ...more });
const rewrites = (view) => view.list.all("textarea");
const press = (view, action) => view.element.all("button").find((one) => one.dataset.action === action).dispatchEvent(new Event("click"));

beforeEach(() => {
  document.activeElement = null;
  app.graph.nodes = [];
});

test("a prompt that is being changed stays as it is written when a picture comes", () => {
  const chat = answered();
  const view = new ChatView(chat);
  press(view, "editPrompt");
  const [box] = rewrites(view);
  assert.equal(document.activeElement, box);
  box.value = "a blue fox";
  chat.addPainted([PICTURE], "painting");
  assert.deepEqual(rewrites(view).map((one) => one.value), ["a blue fox"]);
  assert.equal(document.activeElement, rewrites(view)[0]);
  chat.setOutput({ llmga_chat: [RECORD] }); // out of ComfyUI's cache
  assert.equal(rewrites(view)[0].value, "a blue fox");
  press(view, "usePrompt");
  assert.deepEqual(chat.last.prompts, ["a blue fox"]);
  assert.deepEqual(rewrites(view), []);
  press(view, "editPrompt");
  chat.choose(0); // another reply
  assert.deepEqual(rewrites(view), []);
});

test("what is read out says what a button does", () => {
  const chat = answered();
  const view = new ChatView(chat);
  chat.setPrompts(["a blue fox"]);
  const names = ["previous", "following"].map((action) => view.element.all("button").find((one) => one.dataset.action === action));
  assert.deepEqual(names.map((one) => one.attributes["aria-label"]), ["The reply before", "The next reply"]);
});

test("a thought that was opened stays open", () => {
  const chat = answered();
  const view = new ChatView(chat);
  const thought = () => view.list.all("details").find((one) => !one.hidden);
  assert.equal(thought().open, false);
  thought().open = true;
  thought().dispatchEvent(new Event("toggle"));
  chat.addPainted([PICTURE], "painting");
  assert.equal(thought().open, true);
});

test("a long reply says how much of its start is not shown while it is written", () => {
  const chat = chatOf(node());
  const view = new ChatView(chat);
  const said = () => view.list.all("p").filter((one) => !one.hidden && /not shown here/.test(one.textContent));
  chat.setText("once upon", "run", {});
  assert.equal(said().length, 0);
  chat.setText("a time", "run", { cut: 1234 });
  assert.deepEqual(said().map((one) => one.textContent), ["The first 1,234 characters are not shown here."]);
  chat.stop("run");
  assert.equal(said().length, 1);
  const gill = new GILLView();
  const talk = new Talk({ properties: {} });
  talk.setText("a time", "run", 7);
  gill.render([talk], "a tale");
  assert.match(gill.list.textContent, /The first 7 characters are not shown here\./);
  talk.setText("once upon", "run", "<b>");
  gill.render([talk], "a tale");
  assert.doesNotMatch(gill.list.textContent, /not shown/);
});

test("a message that could not be sent is still the one that is rewritten", async () => {
  const images = ["a".repeat(64)];
  const record = { ...RECORD, exchange: [{ ...ASKED, images }, ANSWERED] };
  const chat = answered(7, { ...record });
  chat.node.widgets.find((one) => one.name === "transcript").value = JSON.stringify([ASKED, ANSWERED]);
  const { composer } = new ChatView(chat);
  const { fetch } = globalThis;
  globalThis.fetch = async () => ({ ok: false, status: 500 });
  composer.edit(2);
  composer.box.value = "two foxes";
  document.activeElement = null; // the button was pressed
  chat.fresh = () => images;
  await composer.send();
  globalThis.fetch = fetch;
  assert.equal(composer.editing, 2);
  assert.equal(composer.box.value, "two foxes");
});

test("the Enter that ends a composition sends nothing", () => {
  const { composer } = new ChatView(chatOf(node()));
  let sent = 0;
  composer.send = () => (sent += 1);
  composer.type(key("Enter", { isComposing: true }));
  composer.type(key("Enter", { keyCode: 229 })); // Safari
  assert.equal(sent, 0);
  composer.type(key("Enter", { keyCode: 13 }));
  assert.equal(sent, 1);
});

test("a picture is enlarged with the keyboard too", () => {
  const shown = picture("/view", "", "picture");
  assert.equal(shown.tabIndex, 0);
  for (const name of ["Enter", " "]) {
    shown.dispatchEvent(key(name));
    assert.ok(shown.classes.has("llmga-large"));
    shown.dispatchEvent(new Event("click"));
    assert.ok(!shown.classes.has("llmga-large"));
  }
  shown.dispatchEvent(key("Enter", { ctrlKey: true })); // ComfyUI's Run
  assert.ok(!shown.classes.has("llmga-large"));
});

test("the sidebar goes nowhere while somebody writes in it, and keeps its view while its node is there", () => {
  const [first, second] = [node(1), node(2)];
  app.graph.nodes = [first, second];
  follow(first);
  const root = document.createElement("div");
  const tab = sidebarTab();
  tab.render(root);
  const box = () => root.all("textarea")[0];
  const before = box();
  before.focus();
  follow(second); // its reply begins
  app.graph.nodes.push(node(3));
  refresh();
  assert.equal(box(), before);
  assert.equal(root.all("option").filter((one) => /#\d/.test(one.textContent)).length, 3);
  document.activeElement = null;
  app.graph.nodes = [node(1), node(2)]; // after Undo
  refresh();
  assert.equal(root.all("option").find((one) => one.selected).textContent, "Chat #1");
  follow(app.graph.nodes[1]);
  assert.notEqual(box(), before);
  tab.destroy();
});
