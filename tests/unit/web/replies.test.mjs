// web/js/chat/state.js without a page: the replies to one question, and the pictures that were painted of each.
import { beforeEach, test } from "node:test";
import assert from "node:assert/strict";
import { app } from "../../../scripts/app.js";
import { chatOf } from "../js/chat/state.js";
import { ANSWERED, ASKED, node, queueing, RECORD, SECOND, value } from "./chat.mjs";

beforeEach(() => {
  app.queued = [];
  app.nodeOutputs = {};
});

test("the replies to one question stay, and one can be gone back to without asking the model", async () => {
  const chat = chatOf(node({ task: "refine", edited_reply: "" }));
  chat.setOutput({ llmga_chat: [RECORD] });
  assert.deepEqual(chat.replies, []);
  await chat.regenerate();
  chat.live = null;
  chat.setOutput({ llmga_chat: [SECOND] });
  assert.equal(chat.replies.length, 2);
  assert.equal(chat.chosen, 1);
  chat.choose(0);
  assert.equal(chat.last.exchange[1].text, ANSWERED.text);
  assert.equal(value(chat.node, "edited_reply"), ANSWERED.text);
  chat.choose(1);
  assert.equal(value(chat.node, "edited_reply"), "");
  chat.setOutput({ llmga_chat: [{ ...RECORD, exchange: [{ ...ASKED, instruction: "a cat" }, ANSWERED] }] });
  assert.deepEqual(chat.replies, []); // another question
});

test("an edited prompt is the reply that the node uses", async () => {
  const chat = chatOf(node({ edited_reply: "" }));
  const text = "Look: <gen_image> a red fox </gen_image> Nice?";
  chat.setOutput({ llmga_chat: [{ ...RECORD, exchange: [ASKED, { ...ANSWERED, text }] }] });
  chat.setPrompts(["a blue fox"]);
  assert.equal(value(chat.node, "edited_reply"), "Look:\n<gen_image> a blue fox </gen_image>\nNice?");
  assert.deepEqual(chat.last.prompts, ["a blue fox"]);
  assert.equal(chat.last.edited, true);
  assert.equal(chat.replies.length, 2); // the model's own is there to go back to
  await chat.send("and now?");
  assert.equal(value(chat.node, "edited_reply"), "");
  assert.match(value(chat.node, "transcript"), /blue fox/);
});

test("what is written below a reply is a draft, and Run takes it along as the next turn", () => {
  const chat = chatOf(node({ task: "refine", instruction: "" }));
  chat.draft = "a fox";
  assert.equal(value(chat.node, "instruction"), "a fox"); // nothing has been answered yet
  chat.setOutput({ llmga_chat: [RECORD] });
  chat.draft = "at night";
  assert.equal(value(chat.node, "instruction"), "a fox");
  chat.takeDraft();
  assert.equal(value(chat.node, "instruction"), "at night");
  assert.deepEqual(JSON.parse(value(chat.node, "transcript")), [ASKED, ANSWERED]);
  assert.equal(chat.draft, "");
});

const PICTURE = { filename: "a_00001_.png", subfolder: "LLMGA", type: "output" };

test("painted pictures stay with the reply that they came of", async () => {
  const chat = chatOf(node());
  chat.addPainted([PICTURE]); // there is no reply
  chat.setOutput({ llmga_chat: [RECORD] });
  const hostile = [{ ...PICTURE, type: "etc" }, { ...PICTURE, filename: "x.html" }, { filename: 3 }, null];
  chat.addPainted([PICTURE, PICTURE, ...hostile], "one");
  assert.deepEqual(chat.painted(1).map((one) => one.filename), ["a_00001_.png"]);
  await chat.send("bigger");
  assert.equal(chat.painted(1).length, 1);
  chat.prompts = ["two"];
  chat.addPainted([{ ...PICTURE, filename: "late.png" }], "one"); // the next reply is on its way
  assert.deepEqual(chat.painted(1).map((one) => one.filename), ["a_00001_.png", "late.png"]);
  chat.setOutput({ llmga_chat: [RECORD] }, "two");
  chat.addPainted([{ ...PICTURE, filename: "b.png" }], "two");
  assert.deepEqual(chat.painted(3).map((one) => one.filename), ["b.png"]);
  chat.live = null;
  await chat.send("again", 0);
  assert.deepEqual(chat.painted(1), []);
});

test("a picture that comes while its reply is asked for again is that reply's", async () => {
  const chat = chatOf(node({ transcript: JSON.stringify([ASKED, ANSWERED]), edited_reply: "" }));
  chat.setOutput({ llmga_chat: [RECORD] });
  queueing("again")();
  await chat.regenerate();
  chat.addPainted([PICTURE], "painting");
  chat.setOutput({ llmga_chat: [SECOND] }, "again");
  assert.deepEqual([1, 3].map((at) => chat.painted(at).length), [0, 0]);
  chat.choose(0);
  assert.deepEqual([1, 3].map((at) => chat.painted(at).length), [0, 1]);
});

test("pictures of another question go with it", () => {
  const chat = chatOf(node());
  chat.setOutput({ llmga_chat: [RECORD] });
  chat.addPainted([PICTURE], "one");
  chat.setOutput({ llmga_chat: [{ ...RECORD, exchange: [{ ...ASKED, instruction: "a cat" }, ANSWERED] }] }); // by Run
  assert.deepEqual(chat.painted(1), []);
});

test("pictures stay with their replies when the oldest reply goes", () => {
  const chat = chatOf(node());
  for (let i = 0; i < 14; i++) {
    const answered = { ...ANSWERED, text: `reply ${i}` };
    chat.setOutput({ llmga_chat: [{ ...RECORD, exchange: [ASKED, answered] }] });
    chat.addPainted([{ ...PICTURE, filename: `${i}.png` }], String(i));
  }
  assert.equal(chat.replies.length, 12);
  for (const at of [0, 5, 11]) {
    chat.choose(at);
    assert.deepEqual(chat.painted(1).map((one) => one.filename), [`${at + 2}.png`]);
  }
});
