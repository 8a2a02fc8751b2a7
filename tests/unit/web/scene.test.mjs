// The plan in the box editor: what is read, and that boxes stay in the picture.
import assert from "node:assert/strict";
import test from "node:test";
import "./page.mjs";
import { app } from "../../../scripts/app.js";
import { SceneEditor } from "../js/scene/editor.js";
import {
  added,
  cleanName,
  emptyPlan,
  hit,
  MOST_OBJECTS,
  moved,
  readPlan,
  removed,
  resized,
  withObject,
  writePlan,
} from "../js/scene/plan.js";

const plan = {
  ...emptyPlan(),
  background: "snow",
  objects: [
    { name: "a red fox", box: [0.1, 0.1, 0.6, 0.6], descriptions: ["old"] },
    { name: "an owl", box: [0.2, 0.2, 0.2, 0.2], descriptions: [] },
  ],
};

test("a plan is read as it was written, and nothing else is read", () => {
  assert.deepEqual(readPlan(writePlan(plan)), plan);
  const broken = ["", "{", "7", "null", "[]", '{"format": "llmga-scene"}', JSON.stringify({ ...plan, objects: [{ name: 1 }] })];
  broken.push(JSON.stringify({ ...plan, objects: [{ name: "a", box: [0, 0, 1, null] }] }));
  for (const text of broken) assert.equal(readPlan(text), null, text);
});

test("boxes stay in the picture and keep a size", () => {
  for (const [dx, dy] of [[0.05, -0.02], [9, 9], [-9, 9], [-9, -9], [0.3, -0.7]]) {
    for (const change of [moved, resized]) {
      const [x, y, width, height] = change([0.1, 0.2, 0.3, 0.4], dx, dy);
      assert.ok(x >= 0 && y >= 0 && width >= 0.01 && height >= 0.01);
      assert.ok(x + width <= 1.0001 && y + height <= 1.0001);
    }
  }
  assert.deepEqual(moved([0.1, 0.2, 0.3, 0.4], 0.05, -0.02), [0.15, 0.18, 0.3, 0.4]);
  assert.deepEqual(resized([0.1, 0.2, 0.3, 0.4], 0.05, -0.02), [0.1, 0.2, 0.35, 0.38]);
});

test("the smallest box under the pointer is taken, and a corner before it", () => {
  assert.equal(hit(plan, 0.3, 0.3).index, 1);
  assert.equal(hit(plan, 0.6, 0.6).index, 0);
  assert.equal(hit(plan, 0.9, 0.9), null);
  assert.deepEqual([hit(plan, 0.69, 0.7).index, hit(plan, 0.69, 0.7).corner], [0, true]);
});

test("objects are added, renamed and removed, and the plan before stays as it was", () => {
  const before = JSON.stringify(plan);
  let many = plan;
  for (let i = 0; i < 20; i++) many = added(many);
  assert.equal(many.objects.length, MOST_OBJECTS);
  assert.ok(many.objects.every(({ box: [x, y, w, h] }) => x + w <= 1 && y + h <= 1));
  assert.equal(withObject(plan, 1, { name: "an eagle" }).objects[1].name, "an eagle");
  assert.deepEqual(removed(plan, 0).objects.map((one) => one.name), ["an owl"]);
  assert.equal(cleanName("  a \n red   fox ", "x"), "a red fox");
  assert.equal(cleanName("  ", "an owl"), "an owl");
  assert.equal(cleanName("x".repeat(500), "").length, 120);
  assert.equal(JSON.stringify(plan), before);
});

const key = (name, more = {}) => Object.assign(new Event("keydown", { cancelable: true }), { key: name, ...more });

test("boxes are chosen, moved, resized and removed with the keyboard", () => {
  const widget = { value: writePlan(plan) };
  const { canvas } = new SceneEditor(widget, () => [512, 512]);
  assert.equal(canvas.tabIndex, 0);
  const press = (...values) => canvas.dispatchEvent(key(...values));
  press("PageDown");
  press("ArrowRight");
  press("ArrowUp");
  press("ArrowDown", { shiftKey: true });
  assert.deepEqual(readPlan(widget.value).objects[1].box, [0.21, 0.19, 0.2, 0.21]);
  press("ArrowLeft", { ctrlKey: true }); // ComfyUI's own
  press("PageDown"); // around
  press("Delete");
  assert.deepEqual(readPlan(widget.value).objects.map((one) => one.name), ["an owl"]);
});

test("the editor speaks the page's language", () => {
  app.extensionManager = { setting: { get: () => "zh-TW" } };
  for (const value of ["", "a fox", writePlan(plan), writePlan(removed(plan, 0))]) {
    const { element } = new SceneEditor({ value }, () => [512, 512]);
    const said = [element.textContent, ...element.all("button").map((one) => one.title)];
    assert.ok(said.every((text) => /\p{Script=Han}/u.test(text) && !/[a-z]{4}/i.test(text)), said.join("|"));
  }
  delete app.extensionManager;
});
