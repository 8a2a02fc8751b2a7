// No text freezes the page: what is drawn is bounded, and what is read costs as much as it is long.
import { test } from "node:test";
import assert from "node:assert/strict";
import { drawing, work } from "./page.mjs";
import { app } from "../../../scripts/app.js";
import { comparison } from "../js/chat/compare.js";
import { chatNodes, executionId } from "../js/chat/graph.js";
import { beginning, MAX_BUBBLE, MAX_CONVERSATION, MIN_BUBBLE, rooms } from "../js/chat/limits.js";
import { chatOf } from "../js/chat/state.js";
import { promptsOf, split } from "../js/chat/tags.js";
import { ChatView } from "../js/chat/view.js";

const SMALL = 20_000;
const GROWTH = 8;
const LARGE = SMALL * GROWTH;
const UNITS = {
  elements: "<div>",
  openers: "<gen_image>",
  prompts: "<gen_image>a</gen_image>",
  "closed only": "</gen_image>",
  brackets: "<",
  "open brackets and spaces": "< ",
  slashes: "</ ",
  fences: "```",
  "fences and words": "``` a",
  backticks: "`",
  thoughts: "<think>",
  "encoded thoughts": "&lt;think&gt;x&lt;/think&gt;",
  words: "word ",
  quotes: '"',
  lines: "\n",
  spaces: " ",
  emoji: "🦊",
};
const RUNS = {
  "a bracket and spaces": (size) => `<${" ".repeat(size)}`,
  "a fence and letters": (size) => `\`\`\`${"a".repeat(size)}`,
  "a fence, letters and spaces": (size) => `\`\`\`${"a".repeat(size / 2)}${" ".repeat(size / 2)}x`,
  "a tag and spaces": (size) => `<gen_image>${" ".repeat(size)}x`,
};
const texts = {
  ...Object.fromEntries(
    Object.entries(UNITS).map(([name, unit]) => [name, (size) => unit.repeat(Math.ceil(size / unit.length))]),
  ),
  ...RUNS,
};

function chatWith(turns, extra = {}) {
  const widgets = [
    { name: "transcript", value: JSON.stringify(turns) },
    { name: "instruction", value: "" },
  ];
  return chatOf({ id: 1, graph: app.graph, widgets, inputs: [], properties: {}, ...extra });
}

function exchange(text, images = []) {
  return [
    { role: "user", text, images, instruction: text },
    { role: "assistant", text, images: [] },
  ];
}

for (const [name, textOf] of Object.entries(texts)) {
  test(`${name}: bounded to draw`, () => {
    const draw = (size) => {
      const view = new ChatView(chatWith(exchange(textOf(size))));
      view.compared.add(1);
      return drawing(() => view.render());
    };
    const [small, large] = [draw(SMALL), draw(LARGE)];
    assert.ok(large.elements <= 2000, `${large.elements} elements`);
    assert.ok(large.characters <= 5 * MAX_BUBBLE, `${large.characters} characters`);
    assert.ok(large.elements <= small.elements + 10, "more elements");
  });

  test(`${name}: linear to read`, () => {
    const [small, large] = [textOf(SMALL), textOf(LARGE)];
    for (const read of [split, promptsOf]) {
      const least = Math.max(work(() => read(small)), 1000);
      assert.ok(work(() => read(large)) <= least * GROWTH * 4, read.name);
    }
  });
}

test("a comparison says what it leaves out", () => {
  const few = comparison("a red fox", "a fox in deep snow", true);
  assert.deepEqual(few.all("mark").map((one) => one.textContent), ["in deep snow"]);
  assert.deepEqual(few.all("del").map((one) => one.textContent), ["red"]);
  assert.ok(!/part|Only the first/.test(few.textContent));
  assert.deepEqual(comparison("fox", "fox, a fox", true).all("mark").map((one) => one.textContent), ["a fox"]);
  const scattered = "word gap ".repeat(500);
  assert.match(comparison("gap ".repeat(500), scattered).textContent, /Only the first 400 places/);
  const long = comparison("fox", "x".repeat(100_000));
  assert.match(long.textContent, /8,000 of 100,000 characters/);
});

test("a reply that is cut says so, and its prompt is copied whole", () => {
  const prompt = "fox ".repeat(10_000).trim();
  const turns = exchange(`<gen_image>${prompt}</gen_image>`);
  const view = new ChatView(chatWith(turns));
  assert.match(view.list.textContent, /20,000 of 40,022 characters/);
  assert.deepEqual(promptsOf(turns[1].text), [prompt]);
});

test("a reply of ordinary length is shown as it is", () => {
  const text = "a fox ".repeat(3000).trim();
  const view = new ChatView(chatWith(exchange(text)));
  assert.deepEqual(view.list.all("p").filter((one) => one.className === "llmga-text").map((one) => one.textContent), [text, text]);
  assert.ok(!view.list.textContent.includes("Shown in part"));
});

test("a live text is bounded too", () => {
  const chat = chatWith([]);
  const view = new ChatView(chat);
  const { elements, characters } = drawing(() => chat.setText("<gen_image>a".repeat(100_000)));
  assert.ok(elements < 1000 && characters < 2 * MAX_BUBBLE);
  assert.ok(drawing(() => chat.setText("<gen_image>b".repeat(100_000))).elements < 1000);
  assert.match(view.list.textContent, /Shown in part/);
});

test("many long turns are bounded together, the newest shown first", () => {
  const turns = Array.from({ length: 100 }, () => exchange("x".repeat(50_000))).flat();
  let view;
  const { characters } = drawing(() => (view = new ChatView(chatWith(turns))));
  assert.ok(characters < 2 * MAX_CONVERSATION);
  const shown = view.list.all("p").filter((one) => one.className === "llmga-text").map((one) => one.textContent.length);
  assert.equal(shown.at(-1), MAX_BUBBLE);
  assert.equal(shown[0], MIN_BUBBLE);
  assert.deepEqual(rooms(["a", "b"]), [MAX_BUBBLE, MAX_BUBBLE]);
});

test("a long instruction behind a short text counts as what is shown", () => {
  const turns = Array.from({ length: 100 }, () => exchange("x")).flat();
  for (const turn of turns) if (turn.role === "user") turn.instruction = "y".repeat(50_000);
  assert.ok(drawing(() => new ChatView(chatWith(turns))).characters < 2 * MAX_CONVERSATION);
});

test("pictures and a task's name of a stranger's turn are bounded", () => {
  const turns = exchange("hi", Array(10_000).fill("a".repeat(64)));
  turns[0].task = "t".repeat(100_000);
  const view = new ChatView(chatWith(turns));
  assert.equal(view.list.all("img").length, 16);
  assert.ok(view.list.textContent.length < 1000);
});

test("no character is cut in two", () => {
  assert.equal(beginning("a🦊b", 2), "a");
  assert.equal(beginning("a🦊b", 3), "a🦊");
  assert.equal(beginning("abc", 3), "abc");
});

test("subgraphs that share subgraphs are each looked into once", () => {
  const chat = { id: 1, comfyClass: "LLMGA_Chat" };
  let visits = 0;
  let graph = { nodes: [chat] };
  for (let level = 0; level < 24; level++) {
    const below = graph;
    const twice = [{ id: 1, subgraph: below }, { id: 2, subgraph: below }];
    graph = {
      get nodes() {
        visits += 1;
        return twice;
      },
    };
  }
  const top = app.rootGraph;
  app.rootGraph = graph;
  try {
    assert.deepEqual(chatNodes(), [chat]);
    assert.equal(executionId(chat).split(":").length, 25);
    assert.equal(executionId({ id: 9 }), undefined);
  } finally {
    app.rootGraph = top;
  }
  assert.ok(visits < 200, `${visits} looks`);
});
