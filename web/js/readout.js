// Shows in a node what its readout says, where a person looks first: which UNet it is, what was restored, how much seam.
// The text reaches the page as the value of a read-only textarea, which cannot hold anything else.
import { app } from "../../../scripts/app.js";
import { keepWheel } from "./chat/dom.js";
import { findLocated } from "./chat/graph.js";
import { isHere } from "./chat/prompts.js";
import { addBox } from "./chat/widgets.js";
import { t } from "./chat/words.js";

const NODES = new Set([
  "LLMGA_UNetLoader",
  "LLMGA_DiffRIRLoader",
  "LLMGA_DiffRIRRestore",
  "LLMGA_SeamReport",
  "LLMGA_PrepareMask",
  "LLMGA_GILLLoader",
  "LLMGA_PictureIndex",
]);
// Shows its readout from the first time on that the positive prompt is empty.
const ON_WARNING = "LLMGA_LongCLIPEncode";
const WARNING = "The prompt is empty";
const MIN_HEIGHT = 90;

const boxes = new WeakMap(); // node -> its textarea

function show(node, output) {
  if (node.comfyClass === ON_WARNING && !boxes.has(node) && output?.text?.[0]?.startsWith?.(WARNING)) addReadout(node);
  const box = boxes.get(node);
  if (box && Array.isArray(output?.text)) box.value = output.text.join("\n\n");
}

function addReadout(node) {
  const box = document.createElement("textarea");
  box.className = "comfy-multiline-input llmga-readout";
  box.style.cssText = "width: 100%; height: 100%; resize: none; unicode-bidi: plaintext;";
  box.readOnly = true;
  box.spellcheck = false;
  box.placeholder = t("readoutEmpty");
  box.setAttribute("aria-label", t("readout"));
  keepWheel(box);
  addBox(node, "llmga_readout", box, MIN_HEIGHT, t("readout"));
  boxes.set(node, box);
}

function showWhenExecuted(node) {
  const onExecuted = node.onExecuted;
  node.onExecuted = function (output, ...rest) {
    onExecuted?.call(this, output, ...rest);
    if (isHere()) show(this, output);
  };
}

// Another tab, or undo, builds the nodes anew; the page still has what they showed, in and out of subgraphs.
function restore(outputs) {
  for (const [locatorId, output] of Object.entries(outputs ?? {})) {
    const node = findLocated(locatorId);
    if (node) show(node, output);
  }
}

app.registerExtension({
  name: "llmga.readout",
  nodeCreated(node) {
    if (NODES.has(node.comfyClass)) addReadout(node);
    if (NODES.has(node.comfyClass) || node.comfyClass === ON_WARNING) showWhenExecuted(node);
  },
  afterConfigureGraph: () => restore(app.nodeOutputs),
  onNodeOutputsUpdated: restore,
});
