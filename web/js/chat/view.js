// One conversation as bubbles, with what can be done about each, and a line to write the next message. The node and the
// sidebar show the same view. Whatever a model, an endpoint or a workflow says reaches the page as textContent.
import { comparison } from "./compare.js";
import { complain } from "./graph.js";
import { beginning, MAX_BUBBLE, MAX_NOTE, MAX_PARTS, MAX_TITLE, rooms, shownInPart } from "./limits.js";
import { address } from "./pictures.js";
import { promptsOf, split, thoughtOf } from "./tags.js";
import { t } from "./words.js";

export class ChatView {
  constructor(chat) {
    this.chat = chat;
    this.editing = null; // the number of the turn that is being rewritten
    this.compared = new Set();
    this.element = make("section", "llmga-panel");
    this.element.setAttribute("aria-label", t("conversation"));
    this.list = make("div", "llmga-list");
    this.list.setAttribute("role", "log");
    this.list.tabIndex = 0;
    this.element.append(this.list, this.makeComposer());
    this.listeners = {
      change: () => this.render(),
      text: () => this.grow(),
      asked: () => this.renderComposer(),
    };
    for (const [kind, action] of Object.entries(this.listeners)) chat.addEventListener(kind, action);
    keepKeys(this.element);
    this.pinned = true; // to the end, until a reader scrolls up
    this.list.addEventListener("scroll", () => (this.pinned = isAtEnd(this.list)));
    this.observer = new ResizeObserver(() => this.scroll());
    this.observer.observe(this.list);
    this.list.addEventListener("keydown", (event) => this.walk(event));
    this.list.addEventListener("wheel", (event) => {
      if (this.list.scrollHeight > this.list.clientHeight) event.stopPropagation(); // else it zooms the graph
    });
    this.render();
  }

  destroy() {
    for (const [kind, action] of Object.entries(this.listeners)) this.chat.removeEventListener(kind, action);
    this.observer.disconnect();
    this.element.remove();
  }

  scroll() {
    if (this.pinned) this.list.scrollTop = this.list.scrollHeight;
  }

  makeComposer() {
    const form = make("form", "llmga-composer");
    this.note = make("p", "llmga-note");
    this.box = make("textarea", "llmga-box");
    this.box.rows = 2;
    this.box.setAttribute("aria-label", t("composer"));
    this.box.title = t("sendHint");
    this.box.addEventListener("keydown", (event) => this.type(event));
    const row = make("div", "llmga-row");
    this.cancel = button("cancel", () => this.stopEditing());
    this.sender = button("send", null, "sendHint");
    this.sender.type = "submit";
    this.sender.classList.add("llmga-primary");
    this.again = button("regenerate", () => this.chat.regenerate(), "regenerateHint");
    this.clear = button("clear", () => this.clearAll(), "clearHint");
    row.append(this.clear, this.again, this.cancel, this.sender);
    form.append(this.note, this.box, row);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    return form;
  }

  async send() {
    const text = this.box.value;
    if (!text.trim() && this.chat.instruction.trim() && this.editing === null) return;
    const at = this.editing ?? this.chat.turns.length;
    this.editing = null;
    this.box.value = "";
    this.pinned = true;
    if (!(await this.chat.send(text, at))) this.box.value = text;
    this.render();
  }

  clearAll() {
    this.stopEditing();
    this.compared.clear();
    this.chat.clear();
  }

  edit(at) {
    const turn = this.chat.turns[at];
    this.editing = at;
    this.box.value = turn.instruction ?? turn.text;
    this.render();
    this.box.focus();
  }

  stopEditing() {
    if (this.editing !== null) this.box.value = "";
    this.editing = null;
    this.render();
    this.box.focus();
  }

  type(event) {
    if (event.isComposing) return; // Enter chooses a Chinese word here
    if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.send();
    } else if (event.key === "Escape" && this.editing !== null) {
      this.stopEditing();
    } else if (event.key === "ArrowUp" && !this.box.value && !this.chat.busy) {
      const at = this.chat.turns.findLastIndex((turn) => turn.role === "user");
      if (at >= 0) this.edit(at);
      event.preventDefault();
    }
  }

  // Up and Down go from bubble to bubble, Tab to what can be done with one.
  walk(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || event.target.closest("button")) return;
    const bubbles = [...this.list.querySelectorAll(".llmga-bubble")];
    const now = bubbles.indexOf(event.target.closest(".llmga-bubble"));
    const next = now < 0 ? bubbles.at(-1) : bubbles[now + step];
    next?.focus();
    event.preventDefault();
  }

  render() {
    const { chat } = this;
    const focused = this.list.contains(document.activeElement);
    const items = [];
    const { last, live, settled } = chat;
    if (settled === null) items.push(remark(t("damaged"), "llmga-warning"));
    if (last?.omitted) items.push(remark(t("omitted", { count: last.omitted })));
    const earlier = last?.earlier ?? [];
    const turns = chat.turns;
    const room = rooms([...earlier, ...turns].map(wordsOf));
    earlier.forEach((turn, i) => items.push(this.bubble(turn, { place: "temp", earlier: true, room: room[i] })));
    turns.forEach((turn, at) => {
      const fresh = at >= (settled?.length ?? 0);
      const dropped = this.editing !== null && at >= this.editing;
      const place = fresh ? "temp" : "input";
      const prompts = fresh ? last.prompts : null;
      items.push(this.bubble(turn, { at, dropped, place, prompts, room: room[earlier.length + at] }));
    });
    for (const note of last?.notes ?? []) items.push(remark(beginning(note, MAX_NOTE), "llmga-warning"));
    this.growing = null;
    if (live) items.push(...this.unfinished(live));
    if (!items.length) items.push(remark(t("empty")));
    this.list.replaceChildren(...items);
    this.renderComposer();
    if (focused) this.list.focus({ preventScroll: true });
    this.scroll();
  }

  renderComposer() {
    const { chat } = this;
    this.box.disabled = chat.blocked;
    this.sender.disabled = chat.busy || chat.blocked || chat.settled === null;
    this.again.disabled = chat.busy || (!chat.last && !chat.live && !chat.instruction.trim());
    this.clear.disabled = chat.busy;
    this.box.placeholder = chat.turns.length ? t("next") : t("first");
    this.cancel.hidden = this.editing === null;
    this.note.textContent = chat.blocked ? t("linked") : this.editing === null ? "" : t("editing");
    this.element.dataset.state = chat.live?.state ?? (chat.last ? "done" : "");
    this.element.setAttribute("aria-busy", String(chat.busy));
  }

  // The question that is being answered, and the answer so far.
  unfinished(live) {
    const question = this.bubble({ role: "user", text: this.chat.instruction, images: [] }, {});
    const answer = make("article", "llmga-bubble");
    answer.dataset.role = "assistant";
    answer.dataset.state = live.state;
    answer.tabIndex = -1;
    this.growing = make("div", "llmga-said");
    this.thought = folded("");
    answer.append(this.thought, this.growing, remark(t(live.state)));
    this.write(live.text);
    return [question, answer];
  }

  grow() {
    if (!this.growing) return this.render();
    this.write(this.chat.live.text);
    this.scroll();
  }

  write(text) {
    say(this.growing, text, MAX_BUBBLE);
    const thought = beginning(thoughtOf(text), MAX_BUBBLE);
    this.thought.lastChild.textContent = thought;
    this.thought.hidden = !thought;
  }

  bubble(turn, { at, place, earlier, dropped, prompts, room = MAX_BUBBLE }) {
    const box = make("article", "llmga-bubble");
    box.dataset.role = turn.role;
    box.tabIndex = -1;
    box.setAttribute("aria-label", turn.role === "user" ? t("you") : "LLMGA");
    if (earlier) box.dataset.earlier = "";
    if (dropped) box.dataset.dropped = "";
    if (at !== undefined) box.dataset.turn = String(at);
    if (turn.images.length) box.append(thumbnails(turn.images, place));
    const task = turn.role === "user" && turn.task !== "chat" ? turn.task : "";
    if (task) box.append(make("span", "llmga-task", beginning(task, MAX_TITLE)));
    const said = make("div", "llmga-said");
    const thought = turn.role === "assistant" && prompts ? this.chat.last?.thought : "";
    if (thought) box.append(folded(beginning(thought, room)));
    if (turn.role === "user") quote(said, wordsOf(turn), room);
    else say(said, turn.text, room);
    box.append(said);
    if (at !== undefined) {
      const found = turn.role === "assistant" ? (prompts ?? promptsIn(turn)) : [];
      if (this.compared.has(at) && found.length) box.append(comparison(this.askedBefore(at), found[0]));
      box.append(this.actions(turn, at, found));
    }
    return box;
  }

  askedBefore(at) {
    const turn = this.chat.turns[at - 1];
    return turn ? wordsOf(turn) : "";
  }

  actions(turn, at, prompts) {
    const row = make("div", "llmga-actions");
    if (turn.role === "user") row.append(button("edit", () => this.edit(at), "editHint"));
    if (prompts.length) {
      row.append(button("copy", (event) => copy(prompts.join("\n\n"), event.currentTarget)));
      const compare = button("compare", () => this.toggleCompare(at), "compareHint");
      compare.setAttribute("aria-pressed", String(this.compared.has(at)));
      row.append(compare);
    }
    row.append(button("branch", () => this.chat.branch(at), "branchHint"));
    for (const one of row.children) one.disabled = this.chat.busy;
    return row;
  }

  toggleCompare(at) {
    if (!this.compared.delete(at)) this.compared.add(at);
    this.render();
    this.list.querySelector(`[data-turn="${at}"] [aria-pressed]`)?.focus();
  }
}

const prompted = new WeakMap(); // turn -> its prompts: a turn never changes, and is drawn again and again

function promptsIn(turn) {
  if (!prompted.has(turn)) prompted.set(turn, promptsOf(turn.text));
  return prompted.get(turn);
}

// What a person wrote, which a task has put into other words for the model; or what the model said.
function wordsOf(turn) {
  return turn.role === "user" ? (turn.instruction ?? turn.text) : turn.text;
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

// A thought is there to be opened and takes no room before.
function folded(thought) {
  const details = make("details", "llmga-thought");
  const text = make("div", "llmga-text", thought);
  text.dir = "auto";
  details.append(make("summary", "", t("thought")), text);
  details.hidden = !thought;
  return details;
}

function paragraph(box, text) {
  const line = make("p", "llmga-text", text);
  line.dir = "auto";
  box.append(line);
}

function thumbnails(shas, place) {
  const row = make("div", "llmga-pictures");
  for (const sha256 of shas) {
    const picture = make("img", "llmga-picture");
    picture.alt = t("picture");
    picture.loading = "lazy";
    picture.addEventListener("error", () => picture.replaceWith(make("span", "llmga-picture", t("picture"))));
    picture.src = address(sha256, place);
    row.append(picture);
  }
  return row;
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

// ComfyUI listens on the document: Delete there removes nodes, Ctrl+V pastes them. Run and Save still reach it.
function keepKeys(element) {
  element.addEventListener("keydown", (event) => {
    const forComfy = (event.ctrlKey || event.metaKey) && ["Enter", "s"].includes(event.key);
    if (!forComfy) event.stopPropagation();
  });
  for (const kind of ["copy", "cut", "paste", "keyup"]) element.addEventListener(kind, (event) => event.stopPropagation());
}

function isAtEnd(list) {
  return list.scrollTop + list.clientHeight >= list.scrollHeight - 8;
}

function remark(text, more = "") {
  return make("p", `llmga-remark ${more}`.trim(), text);
}

export function button(key, action, hint = "") {
  const made = make("button", "llmga-button", t(key));
  made.type = "button";
  made.dataset.action = key;
  if (hint) made.title = t(hint);
  if (action) made.addEventListener("click", action);
  return made;
}

export function make(tag, name, text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text) element.textContent = text;
  return element;
}
