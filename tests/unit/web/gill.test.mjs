// web/js/gill/talk.js without a page: what is kept of a run of LLMGA GILL Chat, and whose story it goes on with.
import { test } from "node:test";
import assert from "node:assert/strict";
import { chain, KEY, readRecord, Talk } from "../js/gill/talk.js";

const RECORD = {
  asked: { text: "a boat", images: [] },
  pieces: [{ text: "once" }, { source: "generate", probability: 0.9, images: [] }],
  remarks: [],
  notes: [],
};
const painted = (filename) => [{ filename, subfolder: "LLMGA", type: "output" }];
const names = (talk) => talk.painted.map((one) => one.filename);

test("a record may be anything", () => {
  for (const value of [null, 7, "x", {}, { asked: {} }, { asked: { text: "a" }, pieces: "b" }]) assert.equal(readRecord(value), null);
  const hostile = { ...RECORD, asked: { text: "a", images: ["../x", "f".repeat(64)] }, pieces: [null, { source: "x" }, { text: "b" }], notes: {} };
  assert.deepEqual(readRecord(hostile), { asked: { text: "a", images: ["f".repeat(64)] }, pieces: [{ text: "b" }], remarks: [], notes: [] });
  assert.equal(readRecord({ ...RECORD, pieces: Array(5000).fill({ text: "a" }) }).pieces.length, 100);
});

test("pictures belong to the record of their run", () => {
  const talk = new Talk({ properties: {} });
  talk.addPainted(painted("a.png"), "1");
  assert.deepEqual(names(talk), [], "nothing was said yet");
  talk.setRecord(RECORD);
  talk.addPainted(painted("a.png"), "1");
  talk.addPainted(painted("b.png"), "1");
  assert.deepEqual(names(talk), ["a.png", "b.png"]);
  talk.setRecord(structuredClone(RECORD)); // the same, out of ComfyUI's cache
  talk.addPainted(painted("c.png"), "2");
  assert.deepEqual(names(talk), ["c.png"]);
  talk.setRecord({ ...RECORD, pieces: [{ text: "other" }] });
  assert.deepEqual(names(talk), []);
  talk.addPainted([{ filename: "../x", subfolder: 7, type: "etc" }], "3");
  assert.deepEqual(names(talk), []);
});

test("words that are being written stand until the record comes, or the run ends", () => {
  const talk = new Talk({ properties: { [KEY]: RECORD } });
  talk.setText("once [IMG0][IMG1] upon");
  assert.equal(talk.live, "once … upon");
  talk.setRecord(RECORD);
  assert.equal(talk.live, null);
  talk.setText("again");
  talk.stop();
  assert.equal(talk.live, null);
  assert.deepEqual(talk.record, RECORD);
  talk.setText("mine", "mine");
  talk.stop("another's");
  assert.equal(talk.live, "mine");
  talk.stop("mine");
  assert.equal(talk.live, null);
});

test("a story begins with the first node whose history leads here, and ends where it began", () => {
  const node = (before) => ({ comfyClass: "G", graph: {}, inputs: [{ name: "history" }], getInputNode: () => before.at(0) });
  const first = node([]);
  const second = node([first]);
  const third = node([second]);
  assert.deepEqual(chain(third, "G"), [first, second, third]);
  assert.deepEqual(chain(node([{ comfyClass: "Other" }]), "G").length, 1);
  const around = [];
  const circle = node(around);
  around.push(circle);
  assert.deepEqual(chain(circle, "G"), [circle]);
});
