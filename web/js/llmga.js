// The chat panel: each LLMGA Chat shows its conversation, and a sidebar tab that of the last one. What it does it does
// through the node's widgets; a workflow runs the same without it. The parts are in chat/.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { passInstructions } from "./chat/bypass.js";
import { fedBy, reached } from "./chat/flow.js";
import { CHAT, chatNodes, executionId, findExecuting, findLocated, widget } from "./chat/graph.js";
import { isHere, isMeant, runningPrompt, watchPrompts } from "./chat/prompts.js";
import { follow, refresh, sidebarTab } from "./chat/sidebar.js";
import { chatOf, noteEnd } from "./chat/state.js";
import { ChatView } from "./chat/view.js";
import { addBox, foldAdvanced } from "./chat/widgets.js";
import { t } from "./chat/words.js";

const MIN_HEIGHT = 260;

function addPanel(node) {
  const chat = chatOf(node);
  const view = new ChatView(chat);
  const panel = addBox(node, "llmga_panel", view.element, MIN_HEIGHT, t("conversation"));
  panel.beforeQueued = ({ isPartialExecution } = {}) => {
    if (!isPartialExecution && !view.composer.writing) chat.takeDraft();
  };
  // The panel is where one writes and where the turns are; a workflow, a link and the API still have these inputs.
  const instruction = widget(node, "instruction");
  if (instruction) instruction.options.advanced = true;
  for (const name of ["transcript", "edited_reply"]) {
    const hidden = widget(node, name);
    if (hidden) hidden.hidden = true; // Nodes 2.0 knows from the schema
  }
  after(instruction ?? {}, "callback", () => chat.tell("asked"));
  for (const name of ["task", "edited_reply"]) after(widget(node, name) ?? {}, "callback", () => chat.tell("asked"));
  after(widget(node, "transcript") ?? {}, "callback", () => chat.tell("change"));
  view.element.addEventListener("focusin", () => follow(node));
  after(node, "onExecuted", function (output) {
    if (isHere()) chatOf(this).setOutput(output, runningPrompt());
  });
  after(node, "onConfigure", () => {
    foldAdvanced(node);
    chat.restore();
  });
  after(node, "onConnectionsChange", () => {
    foldAdvanced(node);
    chat.tell("change");
  });
  foldAdvanced(node);
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

// The node that an event is about, if it is of the workflow that is open.
function nodeOf(detail) {
  return isHere(detail?.prompt_id) ? findExecuting(detail?.node) : null;
}

function showText({ detail }) {
  const node = nodeOf(detail);
  if (node?.comfyClass !== CHAT || typeof detail.text !== "string") return;
  chatOf(node).setText(detail.text, detail.prompt_id, detail);
  follow(node);
}

// A loader reads its weights, or a chat's model moves to the device where it runs.
function showLoading({ detail }) {
  const node = nodeOf(detail);
  if (!node) return;
  const chats = node.comfyClass === CHAT ? [node] : fedBy(node).filter((one) => isMeant(one, detail.prompt_id));
  for (const one of chats) chatOf(one).setLoading(detail.gigabytes, detail.prompt_id);
}

// The pictures of any node that a chat leads to appear under the turn that made them.
function showPainted({ detail }) {
  const images = detail?.output?.images;
  const node = Array.isArray(images) ? nodeOf(detail) : null;
  if (!node || node.comfyClass === CHAT) return;
  for (const one of chatNodes()) {
    if (reached(one).has(node)) chatOf(one).addPainted(images, detail.prompt_id);
  }
}

// An error or a cancel leaves what was written so far, marked as unfinished. The end of one prompt is not that of another.
function stopWriting({ detail }) {
  const promptId = detail?.prompt_id;
  noteEnd(promptId);
  for (const node of chatNodes()) chatOf(node).stop(promptId);
}

function loseConnection() {
  for (const node of chatNodes()) chatOf(node).lose();
}

// What ended while the connection was lost was told to nobody, but is in the history.
async function catchUp() {
  for (const node of chatNodes()) {
    const chat = chatOf(node);
    for (const id of chat.missed.splice(0)) {
      const answer = await api.fetchApi(`/history/${id}`);
      const output = (await answer.json())[id]?.outputs?.[executionId(node)];
      if (output && !chat.busy && isHere(id)) chat.setOutput(output, id);
    }
  }
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
    if (node?.comfyClass === CHAT) chatOf(node).restoreOutput(output);
  }
}

function addStyle() {
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = new URL("chat/chat.css", import.meta.url).href;
  document.head.append(style);
}

function changeRenderer() {
  for (const node of chatNodes()) {
    foldAdvanced(node);
    chatOf(node).tell("asked");
  }
}

const EVENTS = {
  "llmga.text": showText,
  "llmga.loading": showLoading,
  executed: showPainted,
  status: stopDeleted,
  execution_error: stopWriting,
  execution_interrupted: stopWriting,
  execution_success: stopWriting,
  reconnecting: loseConnection,
  reconnected: catchUp,
};

app.registerExtension({
  name: "llmga.chat",
  setup() {
    addStyle();
    passInstructions();
    watchPrompts();
    for (const [name, action] of Object.entries(EVENTS)) api.addEventListener(name, action);
    app.extensionManager?.registerSidebarTab?.(sidebarTab());
    app.ui?.settings?.addEventListener?.("Comfy.VueNodes.Enabled.change", () => setTimeout(changeRenderer));
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
