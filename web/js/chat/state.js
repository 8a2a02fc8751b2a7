// The conversation of one chat node. What counts is in its widgets: `transcript` holds the turns that are settled,
// `instruction` what is asked now. The last reply is an output; it is remembered beside the widgets to be shown again,
// and becomes part of `transcript` when the conversation goes on.
import { app } from "../../../../scripts/app.js";
import { complain, isLinked, locatorId, queueAlone, remember, setWidget, twin, widget } from "./graph.js";
import { hashes, keep } from "./pictures.js";
import { t } from "./words.js";

const KEY = "llmga_chat"; // of the record, in a node's output and in its properties
const MAX_TURNS = 200;
const MAX_NOTES = 4;
const MAX_ENDED = 100;
const CHANGE = "change";
const GO_ON = new Set(["chat", "describe", "edit", "story", "picture_book", CHANGE]); // said again as what they are
const chats = new WeakMap(); // node -> Chat
const ended = []; // ids of the prompts that ended last, for a prompt may end before the page hears its id

// A prompt has ended; the last ones are remembered.
export function noteEnd(promptId) {
  ended.push(promptId);
  if (ended.length > MAX_ENDED) ended.shift();
}

export function chatOf(node) {
  if (!chats.has(node)) chats.set(node, new Chat(node));
  return chats.get(node);
}

class Chat extends EventTarget {
  constructor(node) {
    super();
    this.node = node;
    this.last = null; // the record of the last reply
    this.live = null; // { text, state: "waiting" | "writing" | "stopped" } while one is written
    this.prompts = null; // ids of the prompts in which it is written; null where that is not known
    this.early = null; // an output that came before the ids
  }

  get blocked() {
    return isLinked(this.node, "instruction") || isLinked(this.node, "transcript");
  }

  get busy() {
    return this.live !== null && this.live.state !== "stopped";
  }

  get instruction() {
    return String(widget(this.node, "instruction")?.value ?? "");
  }

  // The settled turns, or null where the widget holds something else: a workflow may come from anybody.
  get settled() {
    const text = String(widget(this.node, "transcript")?.value ?? "");
    if (text !== this.read?.text) this.read = { text, turns: readTurns(text) };
    return this.read.turns;
  }

  // Settled turns and the last exchange: what can be edited and branched from.
  get turns() {
    return [...(this.settled ?? []), ...(this.last?.exchange ?? [])];
  }

  // Whether something of that prompt is about the reply that is waited for; what names no prompt is.
  concerns(promptId) {
    return promptId === undefined || !this.busy || this.prompts === null || this.prompts.includes(promptId);
  }

  setText(text, promptId) {
    if (!this.concerns(promptId)) return; // of an earlier run
    this.last = null; // what it answered is being answered anew
    if (promptId !== undefined) this.prompts = [promptId];
    const begins = this.live?.state !== "writing";
    this.live = { text, state: "writing" };
    this.tell(begins ? "change" : "text");
  }

  // An end of that prompt, or of all, leaves what was written so far, marked as unfinished.
  stop(promptId) {
    if (!this.busy || !this.concerns(promptId)) return;
    this.prompts = null;
    this.live = this.live.text ? { ...this.live, state: "stopped" } : null;
    this.tell("change");
  }

  // From a node's output, which holds one record for each run of a list.
  setOutput(output, promptId) {
    const record = readRecord(output?.[KEY]?.at?.(-1));
    if (!record) return;
    if (!this.concerns(promptId)) {
      if (!this.prompts.length) this.early = { output, promptId }; // perhaps ours, whose id is on its way
      return;
    }
    this.last = record;
    this.live = null;
    this.prompts = null;
    this.node.properties ??= {};
    this.node.properties[KEY] = output[KEY].at(-1);
    remember(); // a page that is closed now opens again with this reply
    this.tell("change");
  }

  // From a workflow that was loaded.
  restore() {
    this.live = null;
    this.last = readRecord(this.node.properties?.[KEY]);
    this.tell("change");
  }

  // Says the next thing; with `at`, in place of turn `at` and all that followed it.
  async send(text, at = this.turns.length) {
    if (this.busy || this.blocked || !this.settled) return false;
    const replaced = this.turns[at];
    const before = this.turns.slice(0, at).findLast((turn) => turn.role === "user");
    const turns = this.turns.slice(0, at);
    const fresh = turns.slice(this.settled.length).flatMap((turn) => turn.images);
    if (!(await this.settle(turns, fresh))) return false;
    if (replaced) setTask(this.node, replaced);
    else followUp(this.node, before);
    setWidget(this.node, "instruction", text);
    await this.run();
    return true;
  }

  async regenerate() {
    if (this.busy) return;
    const seed = Number(widget(this.node, "seed")?.value ?? 0);
    setWidget(this.node, "seed", Number.isSafeInteger(seed + 1) ? seed + 1 : 0);
    this.forget();
    await this.run();
  }

  // Another node that goes on after reply `at`, or says something else in place of question `at`.
  async branch(at) {
    const turn = this.turns[at];
    const kept = this.turns.slice(0, turn.role === "user" ? at : at + 1);
    const fresh = kept.slice(this.settled.length).flatMap((one) => one.images);
    if (!(await stored(fresh))) return null;
    const copy = twin(this.node);
    const chat = chatOf(copy);
    chat.forget();
    setWidget(copy, "transcript", writeTurns(kept));
    setTask(copy, turn);
    setWidget(copy, "instruction", turn.role === "user" ? (turn.instruction ?? turn.text) : "");
    app.canvas?.selectNode?.(copy);
    remember();
    chat.tell("change");
    return chat;
  }

  clear() {
    setTask(this.node, this.turns[0]); // a new conversation begins as this one did
    setWidget(this.node, "transcript", "");
    setWidget(this.node, "instruction", "");
    this.forget();
    remember();
    this.tell("change");
  }

  forget() {
    this.last = null;
    this.live = null;
    if (this.node.properties) delete this.node.properties[KEY];
    const outputs = app.nodeOutputs;
    if (outputs) delete outputs[locatorId(this.node)];
  }

  async settle(turns, fresh) {
    if (!(await stored(fresh))) return false;
    this.forget();
    setWidget(this.node, "transcript", writeTurns(turns));
    return true;
  }

  // This node alone: the language model answers, nothing is painted.
  async run() {
    remember();
    this.live = { text: "", state: "waiting" };
    this.prompts = []; // until the page knows: no other prompt's end is this one's
    this.early = null;
    this.tell("change");
    try {
      const { queued, ids } = await queueAlone(this.node);
      if (!this.busy) return;
      if (!queued) this.stop();
      else if (this.prompts !== null) this.prompts = ids.length ? ids : null;
      if (this.early) this.setOutput(this.early.output, this.early.promptId);
      if (ids.length && ids.every((id) => ended.includes(id))) this.stop();
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  tell(kind) {
    this.dispatchEvent(new Event(kind));
  }
}

// What is said again is said as the same kind of request.
function setTask(node, turn) {
  if (widget(node, "task")?.options?.values?.includes(turn?.task)) setWidget(node, "task", turn.task);
}

// A follow-up changes the picture before: a new idea, or a design, is asked for once. A task that was chosen since the last
// turn stays.
function followUp(node, before) {
  const task = widget(node, "task")?.value;
  if (before && task === before.task && !GO_ON.has(task)) setTask(node, { task: CHANGE });
}

async function stored(shas) {
  try {
    await keep(new Set(shas));
    return true;
  } catch {
    complain(t("pictureGone"));
    return false;
  }
}

function readTurn(value) {
  if (typeof value?.text !== "string" || !["user", "assistant"].includes(value.role)) return null;
  const turn = { role: value.role, text: value.text, images: hashes(value.images) };
  for (const key of ["task", "instruction"]) if (typeof value[key] === "string") turn[key] = value[key];
  return turn;
}

function readTurns(text) {
  if (!text.trim()) return [];
  try {
    const turns = JSON.parse(text).slice(0, MAX_TURNS).map(readTurn);
    const alternate = turns.every((turn, i) => turn?.role === (i % 2 ? "assistant" : "user"));
    return alternate && turns.length % 2 === 0 ? turns : null;
  } catch {
    return null;
  }
}

function writeTurns(turns) {
  return turns.length ? JSON.stringify(turns) : "";
}

function readRecord(value) {
  const exchange = Array.isArray(value?.exchange) ? value.exchange.map(readTurn) : [];
  if (exchange.length !== 2 || exchange[0]?.role !== "user" || exchange[1]?.role !== "assistant") return null;
  const earlier = Array.isArray(value.earlier) ? value.earlier.slice(0, MAX_TURNS).map(readTurn).filter(Boolean) : [];
  const prompts = Array.isArray(value.prompts) ? value.prompts.filter((one) => typeof one === "string") : [];
  const notes = Array.isArray(value.notes) ? value.notes.filter((one) => typeof one === "string").slice(0, MAX_NOTES) : [];
  const thought = typeof value.thought === "string" ? value.thought : "";
  return { exchange, earlier, prompts, notes, thought, omitted: Number.isSafeInteger(value.omitted) ? value.omitted : 0 };
}
