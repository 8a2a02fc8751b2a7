// One conversation as bubbles, with what can be done about each, and the line to write the next message. The node and the
// sidebar show the same view.
import { comparison } from "./compare.js";
import { Composer } from "./composer.js";
import { button, keepKeys, keepWheel, make, paragraph, picture, remark, stayAtEnd } from "./dom.js";
import { complain } from "./graph.js";
import { beginning, cutBefore, MAX_BUBBLE, MAX_NOTE, MAX_PARTS, MAX_TITLE, rooms, shownInPart } from "./limits.js";
import { paintedAddress } from "./painted.js";
import { address } from "./pictures.js";
import { promptsOf, split, thoughtOf } from "./tags.js";
import { t } from "./words.js";

export class ChatView {
  constructor(chat, options = {}) {
    this.chat = chat;
    this.compared = new Set();
    this.pictures = new Map(); // turn and address -> the picture painted of it
    this.rewriting = null; // the text boxes in which the prompts of the last reply are changed …
    this.rewritten = ""; // … and that reply
    this.opened = false; // whether thoughts are shown
    this.element = make("section", "llmga-panel");
    this.element.setAttribute("aria-label", t("conversation"));
    this.list = make("div", "llmga-list");
    this.list.setAttribute("role", "log");
    this.list.tabIndex = 0;
    this.scroll = stayAtEnd(this.list);
    this.composer = new Composer(chat, { ...options, onChange: () => this.render() });
    this.element.append(this.list, this.composer.element);
    this.listeners = {
      change: () => this.render(),
      text: () => this.grow(),
      asked: () => this.composer.render(),
    };
    for (const [kind, action] of Object.entries(this.listeners)) chat.addEventListener(kind, action);
    keepKeys(this.element);
    keepWheel(this.list);
    this.observer = new ResizeObserver(() => this.scroll());
    this.observer.observe(this.list);
    this.list.addEventListener("keydown", (event) => this.walk(event));
    this.render();
  }

  destroy() {
    for (const [kind, action] of Object.entries(this.listeners)) this.chat.removeEventListener(kind, action);
    this.observer.disconnect();
    this.element.remove();
  }

  // Up and Down go from bubble to bubble, Tab to what can be done with one.
  walk(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || event.target.closest("button, textarea")) return;
    const bubbles = [...this.list.querySelectorAll(".llmga-bubble")];
    const now = bubbles.indexOf(event.target.closest(".llmga-bubble"));
    const next = now < 0 ? bubbles.at(-1) : bubbles[now + step];
    next?.focus();
    event.preventDefault();
  }

  render() {
    const { chat } = this;
    const focused = this.list.contains(document.activeElement) ? document.activeElement : null;
    const items = [];
    const { last, live, settled } = chat;
    if (last?.exchange[1].text !== this.rewritten) this.rewriting = null;
    if (settled === null) items.push(remark(t("damaged"), "llmga-warning"));
    if (last?.omitted) items.push(remark(t("omitted", { count: last.omitted })));
    const earlier = last?.earlier ?? [];
    const turns = chat.turns;
    const room = rooms([...earlier, ...turns].map(wordsOf));
    earlier.forEach((turn, i) => items.push(this.bubble(turn, { place: "temp", earlier: true, room: room[i] })));
    turns.forEach((turn, at) => {
      const fresh = at >= (settled?.length ?? 0);
      const dropped = this.composer.editing !== null && at >= this.composer.editing;
      const place = fresh ? "temp" : "input";
      items.push(this.bubble(turn, { at, fresh, dropped, place, room: room[earlier.length + at] }));
    });
    for (const note of last?.notes ?? []) items.push(remark(beginning(note, MAX_NOTE), "llmga-warning"));
    this.growing = null;
    if (live) items.push(...this.unfinished(live));
    if (!items.length) items.push(remark(t("empty")));
    this.list.replaceChildren(...items);
    this.composer.render();
    this.element.dataset.state = chat.live?.state ?? (chat.last ? "done" : "");
    this.element.setAttribute("aria-busy", String(chat.busy));
    if (focused) (this.rewriting?.includes(focused) ? focused : this.list).focus({ preventScroll: true });
    this.scroll();
  }

  // The question that is being answered, and the answer so far.
  unfinished(live) {
    const question = this.bubble({ role: "user", text: this.chat.instruction, images: [] }, {});
    const answer = make("article", "llmga-bubble");
    answer.dataset.role = "assistant";
    answer.dataset.state = live.state;
    answer.setAttribute("aria-label", "LLMGA");
    answer.tabIndex = -1;
    this.growing = make("div", "llmga-said");
    this.thought = this.folded("");
    this.before = remark("");
    this.status = remark(statusOf(live));
    answer.append(this.before, this.thought, this.growing, this.status);
    this.write(live);
    return [question, answer];
  }

  grow() {
    if (!this.growing) return this.render();
    this.write(this.chat.live);
    this.status.textContent = statusOf(this.chat.live);
    this.scroll();
  }

  write({ text, cut }) {
    this.before.textContent = cutBefore(cut);
    this.before.hidden = !cut;
    say(this.growing, text, MAX_BUBBLE);
    const thought = beginning(thoughtOf(text), MAX_BUBBLE);
    this.thought.lastChild.textContent = thought;
    this.thought.hidden = !thought;
  }

  bubble(turn, { at, fresh, place, earlier, dropped, room = MAX_BUBBLE }) {
    const box = make("article", "llmga-bubble");
    box.dataset.role = turn.role;
    box.tabIndex = -1;
    box.setAttribute("aria-label", turn.role === "user" ? t("you") : "LLMGA");
    if (earlier) box.dataset.earlier = "";
    if (dropped) box.dataset.dropped = "";
    if (at !== undefined) box.dataset.turn = String(at);
    if (turn.images.length) box.append(row(turn.images.map((sha256) => picture(address(sha256, place), "", "picture"))));
    if (turn.role === "user") this.fillQuestion(box, turn, at, room);
    else this.fillReply(box, turn, at, fresh, room);
    return box;
  }

  fillQuestion(box, turn, at, room) {
    const task = turn.task !== "chat" ? turn.task : "";
    if (task) box.append(make("span", "llmga-task", beginning(task, MAX_TITLE)));
    const said = make("div", "llmga-said");
    quote(said, wordsOf(turn), room);
    box.append(said);
    if (at !== undefined) box.append(this.actions([["edit", () => this.composer.edit(at)]], at));
  }

  fillReply(box, turn, at, fresh, room) {
    const { last } = this.chat;
    const prompts = fresh ? last.prompts : at === undefined ? [] : promptsIn(turn);
    if (fresh && last.thought) box.append(this.folded(beginning(last.thought, room)));
    const said = make("div", "llmga-said");
    if (fresh && this.rewriting) this.fillPrompts(said);
    else say(said, turn.text, room);
    box.append(said);
    if (at === undefined) return;
    const painted = this.chat.painted(at);
    if (painted.length) box.append(row(painted.map((one) => this.paintedPicture(at, paintedAddress(one)))));
    if (fresh) box.append(remark(speedOf(last), "llmga-speed"));
    if (this.compared.has(at) && prompts.length) box.append(this.compare(at, prompts[0]));
    const doings = [];
    if (prompts.length) {
      doings.push(["copy", (event) => copy(prompts.join("\n\n"), event.currentTarget)]);
      if (fresh && !this.rewriting) doings.push(["editPrompt", () => this.rewrite(prompts)]);
      doings.push(["compare", () => this.toggleCompare(at)]);
    }
    box.append(this.actions(doings, at, fresh));
  }

  // A thought is there to be opened and takes no room before; one that is drawn anew is as open as it was.
  folded(thought) {
    const details = make("details", "llmga-thought");
    const text = make("div", "llmga-text", thought);
    text.dir = "auto";
    details.append(make("summary", "", t("thought")), text);
    details.hidden = !thought;
    details.open = this.opened;
    details.addEventListener("toggle", () => (this.opened = details.open));
    return details;
  }

  // One element for each, so that drawing the conversation anew does not load it anew.
  paintedPicture(at, address) {
    const key = `${at} ${address}`;
    if (!this.pictures.has(key)) this.pictures.set(key, picture(address, "llmga-painted", "paintedGone"));
    return this.pictures.get(key);
  }

  // The prompts of the last reply as text boxes, to be changed before they are painted. They stay the same when the
  // conversation is drawn anew, as it is when a picture comes.
  fillPrompts(said) {
    const use = button("usePrompt", () => {
      const prompts = this.rewriting.map((text) => text.value.trim());
      this.rewriting = null;
      this.chat.setPrompts(prompts);
    });
    use.classList.add("llmga-primary");
    said.append(...this.rewriting, row([use, button("keepPrompt", () => this.rewrite(null))]));
  }

  rewrite(prompts) {
    this.rewriting = prompts?.map((prompt) => {
      const text = make("textarea", "llmga-box llmga-rewrite");
      text.value = prompt;
      text.rows = 7;
      text.setAttribute("aria-label", t("prompt"));
      return text;
    });
    this.rewritten = this.chat.last.exchange[1].text;
    this.render();
    this.rewriting?.[0]?.focus();
  }

  // A prompt beside the one before it, or beside the words that were asked.
  compare(at, prompt) {
    const turns = [...(this.chat.last?.earlier ?? []), ...this.chat.turns.slice(0, at)];
    const earlier = turns.findLast((turn) => turn.role === "assistant" && promptsIn(turn).length);
    const asked = this.chat.turns[at - 1];
    if (earlier) return comparison(promptsIn(earlier)[0], prompt, true);
    return comparison(asked ? wordsOf(asked) : "", prompt, false);
  }

  actions(doings, at, fresh) {
    const bar = make("div", "llmga-actions");
    if (fresh && this.chat.replies.length > 1) bar.append(...this.replies());
    for (const [key, action] of doings) bar.append(button(key, action, HINTS[key]));
    bar.append(button("branch", () => this.chat.branch(at), "branchHint"));
    for (const one of bar.children) {
      one.disabled = this.chat.busy || one.disabled;
      if (one.dataset.action === "compare") one.setAttribute("aria-pressed", String(this.compared.has(at)));
    }
    return bar;
  }

  // ‹ 1/2 ›: the replies to one question.
  replies() {
    const { chosen, replies } = this.chat;
    const step = (key, to) => {
      const made = button(key, () => this.chat.choose(to), `${key}Hint`);
      made.setAttribute("aria-label", t(`${key}Hint`)); // an arrow says nothing when it is read out
      made.disabled = to < 0 || to >= replies.length;
      return made;
    };
    const where = make("span", "llmga-where", `${chosen + 1}/${replies.length}`);
    return [step("previous", chosen - 1), where, step("following", chosen + 1)];
  }

  toggleCompare(at) {
    if (!this.compared.delete(at)) this.compared.add(at);
    this.render();
    this.list.querySelector(`[data-turn="${at}"] [aria-pressed]`)?.focus();
  }
}

const HINTS = { edit: "editHint", editPrompt: "editPromptHint", compare: "compareHint", copy: "" };
const prompted = new WeakMap(); // turn -> its prompts: a turn never changes, and is drawn again and again

function promptsIn(turn) {
  if (!prompted.has(turn)) prompted.set(turn, promptsOf(turn.text));
  return prompted.get(turn);
}

// What a person wrote, which a task has put into other words for the model; or what the model said.
function wordsOf(turn) {
  return turn.role === "user" ? (turn.instruction ?? turn.text) : turn.text;
}

function statusOf(live) {
  if (live.state === "loading" && live.gigabytes >= 0.05) return t("loadingSize", { size: live.gigabytes.toFixed(1) });
  if (live.state === "writing" && live.rate) return `${t("writing")} ${t("rate", { rate: live.rate.toFixed(1) })}`;
  return t(live.state);
}

function speedOf({ speed, edited }) {
  if (edited) return t("wasEdited");
  return speed.tokens && speed.rate ? t("speed", { tokens: speed.tokens, rate: speed.rate.toFixed(1) }) : "";
}

function quote(box, text, room) {
  const shown = beginning(text, room);
  paragraph(box, shown);
  if (shown.length < text.length) box.append(remark(shownInPart(shown.length, text.length)));
}

// Text and prompts of a reply, the prompts marked.
function say(box, text, room) {
  box.replaceChildren();
  const shown = beginning(text, room);
  const parts = split(shown);
  for (const part of parts.slice(0, MAX_PARTS)) {
    if (part.kind === "text") paragraph(box, part.text);
    else {
      const figure = make("figure", "llmga-prompt");
      figure.append(make("figcaption", "", t("prompt")));
      paragraph(figure, part.text);
      box.append(figure);
    }
  }
  const hidden = parts.slice(MAX_PARTS).reduce((sum, part) => sum + part.text.length, 0);
  if (hidden || shown.length < text.length) box.append(remark(shownInPart(shown.length - hidden, text.length)));
}

function row(items) {
  const made = make("div", "llmga-pictures");
  made.append(...items);
  return made;
}

async function copy(text, from) {
  try {
    await navigator.clipboard.writeText(text);
    from.textContent = t("copied");
    setTimeout(() => (from.textContent = t("copy")), 1200);
  } catch {
    complain(t("notCopied")); // no https and no localhost, or no permission
  }
}
