// The chat panel: each LLMGA Chat shows its conversation, and a sidebar tab that of the last one. What it does it does
// through the node's widgets; a workflow runs the same without it. The parts are in chat/.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { passInstructions } from "./chat/bypass.js";
import { CHAT, chatNodes, findExecuting, findLocated, widget } from "./chat/graph.js";
import { follow, refresh, sidebarTab } from "./chat/sidebar.js";
import { chatOf, noteEnd } from "./chat/state.js";
import { ChatView } from "./chat/view.js";

const MIN_HEIGHT = 260;
let running; // the id of the prompt that runs

function addPanel(node) {
  const chat = chatOf(node);
  const view = new ChatView(chat);
  const panel = node.addDOMWidget("llmga_panel", "llmga_panel", view.element, {
    serialize: false, // not in the prompt …
    getMinHeight: () => MIN_HEIGHT,
    getValue: () => "",
    setValue: () => {},
  });
  panel.serialize = false; // … nor in the workflow: both stay as the schema describes them
  after(widget(node, "instruction") ?? {}, "callback", () => chat.tell("asked"));
  after(widget(node, "transcript") ?? {}, "callback", () => chat.tell("change"));
  view.element.addEventListener("focusin", () => follow(node));
  const transcript = widget(node, "transcript");
  if (transcript) transcript.hidden = true; // the panel shows it; Nodes 2.0 knows from the schema
  after(node, "onExecuted", function (output) {
    chatOf(this).setOutput(output, running);
  });
  after(node, "onConfigure", () => chat.restore());
  after(node, "onConnectionsChange", () => chat.tell("change"));
  after(node, "onRemoved", () => {
    view.destroy();
    setTimeout(refresh);
  });
  setTimeout(refresh);
}

function after(object, name, action) {
  const before = object[name];
  object[name] = function (...values) {
    const result = before?.apply(this, values);
    action.apply(this, values);
    return result;
  };
}

function showText({ detail }) {
  const node = findExecuting(detail?.node);
  if (node?.comfyClass !== CHAT || typeof detail.text !== "string") return;
  chatOf(node).setText(detail.text, detail.prompt_id);
  follow(node);
}

function noteStart({ detail }) {
  running = detail?.prompt_id;
}

// An error or a cancel leaves what was written so far, marked as unfinished. The end of one prompt is not that of another;
// a lost connection, which names none, ends all.
function stopWriting({ detail }) {
  const promptId = detail?.prompt_id;
  running = undefined;
  if (promptId !== undefined) noteEnd(promptId);
  for (const node of chatNodes()) chatOf(node).stop(promptId);
}

// A prompt that is taken out of the queue ends without a word, but for the queue's new length.
let asking = false;

async function stopDeleted() {
  const waiting = () => chatNodes().map(chatOf).filter((chat) => chat.live?.state === "waiting" && chat.prompts?.length);
  if (asking || !waiting().length) return;
  asking = true;
  try {
    const before = waiting().map((chat) => [chat, chat.prompts]);
    const queue = await (await api.fetchApi("/queue")).json();
    const ids = new Set([...queue.queue_running, ...queue.queue_pending].map((one) => one[1]));
    for (const [chat, prompts] of before) {
      if (chat.prompts === prompts && !prompts.some((id) => ids.has(id))) chat.stop();
    }
  } catch {
    // no answer says nothing about the queue
  } finally {
    asking = false;
  }
}

// Outputs come without a run when a finished job is opened again.
function restore(outputs) {
  for (const [locatorId, output] of Object.entries(outputs ?? {})) {
    const node = findLocated(locatorId);
    if (node?.comfyClass === CHAT) chatOf(node).setOutput(output);
  }
}

app.registerExtension({
  name: "llmga.chat",
  setup() {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = new URL("chat/chat.css", import.meta.url).href;
    document.head.append(style);
    passInstructions();
    api.addEventListener("llmga.text", showText);
    api.addEventListener("execution_start", noteStart);
    api.addEventListener("status", stopDeleted);
    for (const end of ["execution_error", "execution_interrupted", "execution_success", "reconnecting"]) {
      api.addEventListener(end, stopWriting);
    }
    app.extensionManager?.registerSidebarTab?.(sidebarTab());
  },
  nodeCreated(node) {
    if (node.comfyClass === CHAT) addPanel(node);
  },
  afterConfigureGraph() {
    for (const node of chatNodes()) chatOf(node).restore();
    refresh();
  },
  onNodeOutputsUpdated: restore,
});
