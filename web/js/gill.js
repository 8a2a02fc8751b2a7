// The panel of LLMGA GILL Chat: what was said, and the pictures between the words, found or painted. A workflow runs the
// same without it. The parts are in gill/.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { reached } from "./chat/flow.js";
import { findExecuting, findLocated, nodesOf, remember, widget } from "./chat/graph.js";
import { isHere } from "./chat/prompts.js";
import { addBox } from "./chat/widgets.js";
import { t } from "./chat/words.js";
import { chain, KEY, Talk } from "./gill/talk.js";
import { GILLView } from "./gill/view.js";

const GILL = "LLMGA_GILLChat";
const POSITIVE = 3; // the output whose pictures belong to the reply
const MIN_HEIGHT = 240;

const talks = new WeakMap(); // node -> what it said
const views = new WeakMap(); // node -> its panel

function talkOf(node) {
  if (!talks.has(node)) talks.set(node, new Talk(node));
  return talks.get(node);
}

// All of them: one may show what another said.
function render() {
  for (const node of nodesOf(GILL)) {
    views.get(node)?.render(chain(node, GILL).map(talkOf), String(widget(node, "message")?.value ?? ""));
  }
}

function addPanel(node) {
  const view = new GILLView();
  views.set(node, view);
  addBox(node, "llmga_panel", view.element, MIN_HEIGHT, t("conversation"));
  after(node, "onExecuted", (output) => {
    if (!isHere()) return;
    talkOf(node).setRecord(output?.[KEY]?.[0]);
    remember(); // a page that is closed now opens again with this reply
    render();
  });
  after(node, "onConfigure", () => setTimeout(render));
  after(node, "onConnectionsChange", () => setTimeout(render));
  setTimeout(render);
}

function after(object, name, action) {
  const before = object[name];
  object[name] = function (...values) {
    const result = before?.apply(this, values);
    action.apply(this, values);
    return result;
  };
}

function nodeOf(detail) {
  return isHere(detail?.prompt_id) ? findExecuting(detail?.node) : null;
}

function showText({ detail }) {
  const node = nodeOf(detail);
  if (node?.comfyClass !== GILL || typeof detail.text !== "string") return;
  talkOf(node).setText(detail.text, detail.prompt_id, detail.cut);
  render();
}

function showPainted({ detail }) {
  const images = detail?.output?.images;
  const node = Array.isArray(images) ? nodeOf(detail) : null;
  if (!node) return;
  for (const one of nodesOf(GILL)) {
    if (reached(one, [POSITIVE]).has(node)) talkOf(one).addPainted(images, detail.prompt_id);
  }
  render();
}

// The end of one prompt is not that of another; a lost connection, which names none, ends all.
function stopWriting({ detail }) {
  for (const node of nodesOf(GILL)) talkOf(node).stop(detail?.prompt_id);
  render();
}

// Outputs come without a run when a finished job is opened again.
function restore(outputs) {
  for (const [locatorId, output] of Object.entries(outputs ?? {})) {
    const node = findLocated(locatorId);
    if (node?.comfyClass === GILL) talkOf(node).setRecord(output?.[KEY]?.[0]);
  }
  render();
}

const EVENTS = {
  "llmga.text": showText,
  executed: showPainted,
  execution_error: stopWriting,
  execution_interrupted: stopWriting,
  reconnecting: stopWriting,
};

app.registerExtension({
  name: "llmga.gill",
  setup() {
    for (const [name, action] of Object.entries(EVENTS)) api.addEventListener(name, action);
  },
  nodeCreated(node) {
    if (node.comfyClass === GILL) addPanel(node);
  },
  afterConfigureGraph: render,
  onNodeOutputsUpdated: restore,
});
