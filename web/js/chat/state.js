// The conversation of one chat node. What counts is in its widgets: `transcript` holds the turns that are settled,
// `instruction` what is asked now, `edited_reply` a reply that a person chose. The last reply is an output; it is remembered
// beside the widgets to be shown again, and becomes part of `transcript` when the conversation goes on.
import { app } from "../../../../scripts/app.js";
import { spokenTargets, twin } from "./flow.js";
import { cancel, isLinked, locatorId, remember, setWidget, widget } from "./graph.js";
import { readPainted, withPictures, withReplies, writePainted } from "./painted.js";
import { stored } from "./pictures.js";
import { withPrompts } from "./tags.js";
import { followUp, setTask } from "./tasks.js";
import { number, readRecord, readTurns, sameQuestion, writeTurns } from "./turns.js";

const KEY = "llmga_chat"; // of the record, in a node's output and in its properties
const DRAFT = "llmga_draft"; // what is written below a reply and not sent yet
const REPLIES = "llmga_replies"; // the records of all replies to the last question, where there are several
const MAX_ENDED = 100;
const MAX_REPLIES = 12;
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
    this.live = null; // { text, state: "waiting" | "loading" | "writing" | "stopped" } while one is written
    this.prompts = null; // ids of the prompts in which it is written, none before the page knows; null where nobody says
    this.early = []; // what came before the ids, to be taken when they are known
    this.missed = []; // ids of the prompts that were waited for when the connection was lost
    this.before = []; // [name, value] of the widgets that "Regenerate" changed
  }

  get blocked() {
    return isLinked(this.node, "instruction") || isLinked(this.node, "transcript");
  }

  get busy() {
    return this.live !== null && this.live.state !== "stopped";
  }

  get instruction() {
    return this.text("instruction");
  }

  // Whether a reply that a person edited or chose is used in place of asking the model.
  get edited() {
    return this.text("edited_reply") !== "";
  }

  text(name) {
    return String(widget(this.node, name)?.value ?? "");
  }

  // What stands in the line to write in: the instruction while it has no answer, and then what is to be said next.
  get draft() {
    return this.last || this.busy ? String(this.node.properties?.[DRAFT] ?? "") : this.instruction;
  }

  set draft(text) {
    if (this.last || this.busy) this.property(DRAFT, text || undefined);
    else setWidget(this.node, "instruction", text);
    if (text && this.last && !this.keeping) this.keeping = stored(this.fresh(this.turns));
  }

  property(name, value) {
    this.node.properties ??= {};
    if (value === undefined) delete this.node.properties[name];
    else this.node.properties[name] = value;
  }

  // The settled turns, or null where the widget holds something else: a workflow may come from anybody.
  get settled() {
    const text = this.text("transcript");
    if (text !== this.read?.text) this.read = { text, turns: readTurns(text) };
    return this.read.turns;
  }

  // Settled turns and the last exchange: what can be edited and branched from.
  get turns() {
    return [...(this.settled ?? []), ...(this.last?.exchange ?? [])];
  }

  // The records of all replies to the last question, and which of them is shown.
  get replies() {
    const { newest } = this;
    const kept = this.node.properties?.[REPLIES];
    const all = newest && Array.isArray(kept) ? kept.slice(-MAX_REPLIES).filter((one) => readRecord(one)) : [];
    return all.some((one) => sameQuestion(readRecord(one), newest)) ? all : [];
  }

  get chosen() {
    return Math.max(0, this.replies.findIndex((one) => one.exchange[1].text === this.newest.exchange[1].text));
  }

  // The last reply, or while it is asked for again the one that was there.
  get newest() {
    return this.last ?? readRecord(this.node.properties?.[KEY]);
  }

  // The pictures painted of the reply that is turn `at`.
  painted(at) {
    const reply = at > (this.settled?.length ?? 0) ? this.chosen : 0;
    return readPainted(this.node).filter((one) => one.turn === at && one.reply === reply);
  }

  // Pictures of a node that this chat leads to: of the last reply, or of the one before while another is waited for.
  addPainted(images, promptId) {
    if (!this.settled || !(this.last || this.busy)) return;
    if (this.awaited) {
      this.early.push(() => this.addPainted(images, promptId));
      return;
    }
    const late = this.busy && this.prompts !== null && !this.prompts.includes(promptId);
    const before = late && !this.newest; // else the same question is being answered anew
    const turn = this.settled.length + (before ? -1 : 1);
    if (turn < 1) return;
    writePainted(this.node, withPictures(readPainted(this.node), images, turn, before ? 0 : this.chosen));
    this.tell("change");
  }

  // Whether the id of the prompt that answers is on its way: a run whose results are cached ends before the page knows it.
  get awaited() {
    return this.busy && this.prompts?.length === 0;
  }

  // Whether something of that prompt is about the reply that is waited for; what names no prompt is.
  concerns(promptId) {
    return promptId === undefined || !this.busy || this.prompts === null || this.prompts.includes(promptId);
  }

  setText(text, promptId, { rate, cut } = {}) {
    if (!this.concerns(promptId)) return; // of an earlier run
    this.last = null; // what it answered is being answered anew
    if (promptId !== undefined) this.prompts = [promptId];
    const begins = this.live?.state !== "writing";
    this.live = { text, state: "writing", ...(rate > 0 ? { rate } : {}), ...(cut > 0 ? { cut } : {}) };
    this.tell(begins ? "change" : "text");
  }

  setLoading(gigabytes, promptId) {
    if (!this.concerns(promptId) || this.live?.state === "writing") return;
    this.last = null;
    if (promptId !== undefined) this.prompts = [promptId];
    this.live = { text: "", state: "loading", gigabytes: number(gigabytes) };
    this.tell("change");
  }

  // An end of that prompt, or of all, leaves what was written so far, marked as unfinished.
  stop(promptId) {
    if (!this.busy || !this.concerns(promptId)) return;
    this.prompts = null;
    this.live = this.live.text ? { ...this.live, state: "stopped" } : null;
    if (!this.live) this.goBack();
    this.tell("change");
  }

  // The connection is lost, but its prompts may go on: what asked for the reply stays, and they are asked for later.
  lose() {
    if (this.busy) this.missed = this.prompts ?? [];
    this.before = [];
    this.stop();
  }

  // Nothing has come in the place of the last reply.
  goBack() {
    this.last = readRecord(this.node.properties?.[KEY]);
    for (const [name, value] of this.before.splice(0)) setWidget(this.node, name, value);
  }

  // What a person stops: the reply that is waited for or written.
  async halt() {
    if (!this.busy) return;
    this.halted = this.awaited;
    if (!this.halted) await cancel(this.prompts ?? []);
  }

  // Waits for a reply; until the page knows the prompt in which it is written, no other prompt's end is this one's.
  await() {
    this.live = { text: "", state: "waiting" };
    this.prompts = [];
    this.early = [];
    this.halted = false;
  }

  // ComfyUI has taken a prompt in which the reply is written.
  async took(promptId) {
    if (!this.busy || this.prompts === null) return;
    this.prompts.push(promptId);
    for (const take of this.early.splice(0)) take();
    if (this.prompts?.every((id) => ended.includes(id))) this.stop();
    if (this.halted) await cancel([promptId]);
  }

  // From a node's output, which holds one record for each run of a list.
  setOutput(output, promptId) {
    const raw = output?.[KEY]?.at?.(-1);
    const record = readRecord(raw);
    if (!record) return;
    if (!this.concerns(promptId)) {
      if (this.awaited) this.early.push(() => this.setOutput(output, promptId));
      return;
    }
    this.live = null;
    this.prompts = null;
    this.keeping = null;
    this.before = [];
    this.note(raw);
    this.show(raw);
    remember(); // a page that is closed now opens again with this reply
    this.tell("change");
  }

  // From the outputs that the page keeps, which know nothing of Undo, of Clear, or of a reply that was edited or chosen: one
  // counts if it answers the question that stands here, and is not among the replies that were there already.
  restoreOutput(output) {
    const record = readRecord(output?.[KEY]?.at?.(-1));
    if (!record || (!isLinked(this.node, "instruction") && record.exchange[0].instruction !== this.instruction)) return;
    const text = record.exchange[1].text;
    const known = this.kept.map(readRecord).filter((one) => one && sameQuestion(one, record));
    if (this.settled?.at(-1)?.text !== text && !known.some((one) => one.exchange[1].text === text)) this.setOutput(output);
  }

  // What is kept of the replies to the last question: of all, and of the one that is shown.
  get kept() {
    const all = this.node.properties?.[REPLIES];
    return [...(Array.isArray(all) ? all : []), this.node.properties?.[KEY]];
  }

  show(raw) {
    this.last = readRecord(raw);
    this.property(KEY, raw);
  }

  // Keeps a reply among those to its question, beside the one that is shown; replies to another question go.
  note(raw) {
    const replies = new Map(); // by their text
    for (const one of [...this.kept, raw]) {
      const record = readRecord(one);
      if (!record || !sameQuestion(record, readRecord(raw))) continue;
      const { text } = record.exchange[1];
      if (!replies.has(text)) replies.set(text, { ...one, earlier: [] });
    }
    this.property(REPLIES, replies.size > 1 ? [...replies.values()].slice(-MAX_REPLIES) : undefined);
    const isNew = this.newest && !sameQuestion(this.newest, readRecord(raw));
    const gone = isNew ? Infinity : Math.max(0, replies.size - MAX_REPLIES);
    if (gone && this.settled) writePainted(this.node, withReplies(readPainted(this.node), this.settled.length + 1, gone));
  }

  // Goes back to another reply to the same question; the model is not asked for it again.
  choose(number) {
    const raw = this.replies[number];
    if (!raw || this.busy) return;
    this.show({ ...raw, earlier: this.last.earlier, omitted: this.last.omitted });
    const newest = number === this.replies.length - 1 && !raw.edited;
    setWidget(this.node, "edited_reply", newest ? "" : raw.exchange[1].text);
    remember();
    this.tell("change");
  }

  // Other prompts in the last reply, before they are painted.
  setPrompts(prompts) {
    const [asked, answered] = this.last.exchange;
    const text = withPrompts(answered.text, prompts);
    const raw = { ...this.node.properties[KEY], exchange: [asked, { ...answered, text }], prompts, edited: true };
    this.note(raw);
    this.show(raw);
    setWidget(this.node, "edited_reply", text);
    remember();
    this.tell("change");
  }

  // From a workflow that was loaded.
  restore() {
    this.live = null;
    this.last = readRecord(this.node.properties?.[KEY]);
    this.tell("change");
  }

  // Says the next thing; with `at`, in place of turn `at` and all that followed it.
  async send(text, at = this.turns.length, paint = false) {
    if (this.busy || this.blocked || !this.settled) return false;
    if (!(await stored(this.fresh(this.turns.slice(0, at))))) return false;
    this.settle(text, at);
    await this.run(paint);
    return true;
  }

  settle(text, at) {
    const turns = this.turns.slice(0, at);
    const replaced = this.turns[at];
    const before = turns.findLast((turn) => turn.role === "user");
    const chosen = this.last ? this.chosen : 0;
    const painted = readPainted(this.node).filter((one) => one.turn < turns.length);
    const shown = painted.filter((one) => one.turn < this.settled.length || one.reply === chosen);
    writePainted(this.node, shown.map((one) => ({ ...one, reply: 0 })));
    this.forget();
    this.property(REPLIES, undefined);
    this.property(DRAFT, undefined);
    setWidget(this.node, "edited_reply", "");
    setWidget(this.node, "transcript", writeTurns(turns));
    if (replaced) setTask(this.node, replaced);
    else followUp(this.node, before);
    setWidget(this.node, "instruction", text);
  }

  // ComfyUI's Run takes what is written below the reply along, as the next thing that is said.
  takeDraft() {
    const text = this.draft;
    if (!text.trim() || !this.last || this.busy || this.blocked || !this.settled) return;
    const keeping = this.keeping ?? stored(this.fresh(this.turns));
    this.settle(text, this.turns.length);
    this.await();
    this.keeping = keeping; // ComfyUI gets the prompt when the pictures are there
    this.tell("change");
  }

  async regenerate() {
    if (this.busy) return;
    const seed = Number(widget(this.node, "seed")?.value ?? 0);
    const last = this.node.properties?.[KEY];
    this.forget();
    this.property(KEY, last); // until another has come
    this.before = [["seed", seed], ["edited_reply", this.text("edited_reply")]];
    setWidget(this.node, "seed", Number.isSafeInteger(seed + 1) ? seed + 1 : 0);
    setWidget(this.node, "edited_reply", "");
    await this.run();
  }

  // Another node that goes on after reply `at`, or says something else in place of question `at`.
  async branch(at) {
    const turn = this.turns[at];
    const kept = this.turns.slice(0, turn.role === "user" ? at : at + 1);
    if (!(await stored(this.fresh(kept)))) return null;
    const copy = twin(this.node);
    const chat = chatOf(copy);
    chat.forget();
    for (const name of [REPLIES, DRAFT]) chat.property(name, undefined);
    writePainted(copy, kept.flatMap((_, i) => this.painted(i)).map((one) => ({ ...one, reply: 0 })));
    setWidget(copy, "edited_reply", "");
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
    for (const name of ["transcript", "edited_reply", "instruction"]) setWidget(this.node, name, "");
    for (const name of [REPLIES, DRAFT]) this.property(name, undefined);
    writePainted(this.node, []);
    this.forget();
    remember();
    this.tell("change");
  }

  forget() {
    this.last = null;
    this.live = null;
    this.keeping = null;
    this.before = [];
    this.property(KEY, undefined);
    const outputs = app.nodeOutputs;
    if (outputs) delete outputs[locatorId(this.node)];
  }

  // The pictures of turns that are not settled yet.
  fresh(turns) {
    return turns.slice(this.settled.length).flatMap((turn) => turn.images);
  }

  // The language model answers; with `paint`, the whole workflow runs. One that is refused leaves nothing to wait for.
  async run(paint = false) {
    remember();
    if (!this.last) this.await();
    this.tell("change");
    await app.queuePrompt(0, 1, paint ? undefined : spokenTargets(this.node));
  }

  tell(kind) {
    this.dispatchEvent(new Event(kind));
  }
}
