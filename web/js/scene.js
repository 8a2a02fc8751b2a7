// The box editor in LLMGA Scene Plan. What it does it does through the node's widget "plan"; a workflow runs the same
// without it. The parts are in scene/.
import { app } from "../../../scripts/app.js";
import { findLocated } from "./chat/graph.js";
import { isHere } from "./chat/prompts.js";
import { addBox } from "./chat/widgets.js";
import { t } from "./chat/words.js";
import { SceneEditor } from "./scene/editor.js";

const PLANNER = "LLMGA_ScenePlan";
const MIN_HEIGHT = 300;

function widgetOf(node, name) {
  return node.widgets?.find((one) => one.name === name);
}

function addEditor(node) {
  const plan = widgetOf(node, "plan");
  if (!plan) return;
  const shape = () => ["width", "height"].map((name) => Number(widgetOf(node, name)?.value) || 512);
  const editor = new SceneEditor(plan, shape);
  addBox(node, "llmga_boxes", editor.element, MIN_HEIGHT, t("boxes"));
  node.llmgaBoxes = editor;
  for (const name of ["plan", "width", "height"]) {
    const widget = widgetOf(node, name);
    if (widget) follow(widget, "callback", () => editor.refresh());
  }
  follow(node, "onExecuted", (output) => isHere() && propose(node, output));
  follow(node, "onConfigure", () => editor.refresh());
  follow(node, "onRemoved", () => editor.destroy());
}

function propose(node, output) {
  if (output?.llmga_scene) node.llmgaBoxes?.propose(output.llmga_scene[0]);
}

// Another tab, or undo, builds the nodes anew; the page still has what the last run planned.
function restore(outputs) {
  for (const [locatorId, output] of Object.entries(outputs ?? {})) {
    const node = findLocated(locatorId);
    if (node?.comfyClass === PLANNER) propose(node, output);
  }
}

function follow(object, name, action) {
  const before = object[name];
  object[name] = function (...values) {
    const result = before?.apply(this, values);
    action(...values);
    return result;
  };
}

app.registerExtension({
  name: "llmga.scene",
  nodeCreated(node) {
    if (node.comfyClass === PLANNER) addEditor(node);
  },
  afterConfigureGraph: () => restore(app.nodeOutputs),
  onNodeOutputsUpdated: restore,
});
