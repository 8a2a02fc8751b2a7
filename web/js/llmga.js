// Shows on each LLMGA Chat what the model writes, while it writes, and keeps the reply there when it is done.
// Whatever a model or an endpoint says is text: it reaches the page as the value of a read-only textarea, which
// cannot hold anything else.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const STYLE = `
.llmga-reply { width: 100%; height: 100%; resize: none; unicode-bidi: plaintext; }
.llmga-reply[data-state="writing"] { outline: 1px solid var(--p-primary-color, #64b5f6); outline-offset: -1px; }
.llmga-reply[data-state="stopped"] { outline: 1px dashed var(--error-text, #f44336); outline-offset: -1px; }
`;
const EMPTY = { en: "The reply appears here.", zh: "回复会显示在这里。" };

const boxes = new WeakMap(); // node -> the textarea that shows its reply
const writing = new Set(); // the textareas whose text still grows

function setText(node, text, state) {
  const box = boxes.get(node);
  if (!box) return;
  // A reader who has scrolled up stays there.
  const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
  box.value = text;
  setState(box, state);
  if (state === "writing" && atEnd) box.scrollTop = box.scrollHeight;
}

function setState(box, state) {
  box.dataset.state = state;
  box.setAttribute("aria-busy", String(state === "writing"));
  if (state === "writing") writing.add(box);
  else writing.delete(box);
}

function showOutput(node, output) {
  if (Array.isArray(output?.text)) setText(node, output.text.join("\n\n"), "done");
}

// An error or a cancel leaves what was written so far, marked as unfinished.
function stopWriting() {
  for (const box of writing) setState(box, "stopped");
}

// Execution ids: "7" is a node of the graph on top, "3:7" is node 7 inside the subgraph node 3.
function findExecuting(executionId) {
  let graph = app.rootGraph ?? app.graph;
  let node;
  for (const id of String(executionId).split(":")) {
    node = nodeIn(graph, id);
    graph = node?.subgraph;
  }
  return node;
}

// Locator ids, under which the page keeps outputs: "7", or the subgraph's own id and "7" inside it.
function findLocated(locatorId) {
  const [id, subgraph] = String(locatorId).split(":").reverse();
  const root = app.rootGraph ?? app.graph;
  return nodeIn(subgraph ? root?.subgraphs?.get(subgraph) : root, id);
}

function nodeIn(graph, id) {
  return graph?.getNodeById(Number(id)) ?? graph?.getNodeById(id);
}

function restore(outputs) {
  for (const [locatorId, output] of Object.entries(outputs ?? {})) showOutput(findLocated(locatorId), output);
}

function addReplyBox(node) {
  const box = document.createElement("textarea");
  box.className = "comfy-multiline-input llmga-reply";
  box.readOnly = true;
  box.spellcheck = false;
  box.placeholder = EMPTY[app.extensionManager?.setting?.get("Comfy.Locale")] ?? EMPTY.en;
  box.setAttribute("aria-label", "reply");
  box.addEventListener("wheel", (event) => {
    if (box.scrollHeight > box.clientHeight) event.stopPropagation(); // else the wheel zooms the graph
  });
  const widget = node.addDOMWidget("llmga_reply", "llmga_reply", box, {
    serialize: false, // not in the prompt …
    getMinHeight: () => 120,
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false; // … nor in the workflow: both stay as the schema describes them
  boxes.set(node, box);
  const onExecuted = node.onExecuted;
  node.onExecuted = function (output, ...rest) {
    onExecuted?.call(this, output, ...rest);
    showOutput(this, output);
  };
}

app.registerExtension({
  name: "llmga.chat",
  setup() {
    const style = document.createElement("style");
    style.textContent = STYLE;
    document.head.append(style);
    api.addEventListener("llmga.text", ({ detail }) => setText(findExecuting(detail.node), detail.text, "writing"));
    for (const end of ["execution_error", "execution_interrupted", "execution_success", "reconnecting"]) {
      api.addEventListener(end, stopWriting);
    }
  },
  nodeCreated(node) {
    if (node.comfyClass === "LLMGA_Chat") addReplyBox(node);
  },
  // Another tab, or undo, builds the nodes anew; the page still has what they showed.
  afterConfigureGraph() {
    restore(app.nodeOutputs);
  },
  onNodeOutputsUpdated: restore,
});
