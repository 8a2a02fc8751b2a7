// Shows in a node what its readout says, where a person looks first: which UNet it is, what was restored, how much seam.
// The text reaches the page as the value of a read-only textarea, which cannot hold anything else.
import { app } from "../../../scripts/app.js";
import { keepWheel } from "./chat/dom.js";
import { addBox } from "./chat/widgets.js";

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
const LABEL = { en: "readout", zh: "说明" };
const EMPTY = { en: "The readout appears here.", zh: "说明会显示在这里。" };
const MIN_HEIGHT = 90;

const boxes = new WeakMap(); // node -> its textarea

function show(node, output) {
  const box = boxes.get(node);
  if (box && Array.isArray(output?.text)) box.value = output.text.join("\n\n");
}

function addReadout(node) {
  const box = document.createElement("textarea");
  box.className = "comfy-multiline-input llmga-readout";
  box.style.cssText = "width: 100%; height: 100%; resize: none; unicode-bidi: plaintext;";
  box.readOnly = true;
  box.spellcheck = false;
  const locale = app.extensionManager?.setting?.get("Comfy.Locale");
  box.placeholder = EMPTY[locale] ?? EMPTY.en;
  box.setAttribute("aria-label", LABEL[locale] ?? LABEL.en);
  keepWheel(box);
  addBox(node, "llmga_readout", box, MIN_HEIGHT, LABEL[locale] ?? LABEL.en);
  boxes.set(node, box);
  const onExecuted = node.onExecuted;
  node.onExecuted = function (output, ...rest) {
    onExecuted?.call(this, output, ...rest);
    show(this, output);
  };
}

function addBoxOnWarning(node) {
  const onExecuted = node.onExecuted;
  node.onExecuted = function (output, ...rest) {
    onExecuted?.call(this, output, ...rest);
    if (boxes.has(this) || !output?.text?.[0]?.startsWith?.(WARNING)) return;
    addReadout(this);
    show(this, output);
  };
}

app.registerExtension({
  name: "llmga.readout",
  nodeCreated(node) {
    if (NODES.has(node.comfyClass)) addReadout(node);
    if (node.comfyClass === ON_WARNING) addBoxOnWarning(node);
  },
  // Another tab, or undo, builds the nodes anew; the page still has what those of the graph on top showed.
  afterConfigureGraph() {
    for (const node of app.graph?.nodes ?? []) show(node, app.nodeOutputs?.[node.id]);
  },
});
