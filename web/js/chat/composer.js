// The one place to write: what stands here is what Send, Send and paint, and ComfyUI's own Run say next.
import { button, make } from "./dom.js";
import { isLinked, setWidget, widget } from "./graph.js";
import { beginning, MAX_TITLE } from "./limits.js";
import { toggleAdvanced } from "./widgets.js";
import { t } from "./words.js";

const COMPOSING = 229; // Safari ends a composition before it tells of the Enter that ended it

export class Composer {
  // `withTask` adds the choice of a task, where the node's own is out of sight.
  constructor(chat, { withTask = false, onChange = () => {} } = {}) {
    this.chat = chat;
    this.editing = null; // the number of the turn that is being rewritten
    this.onChange = onChange;
    this.element = make("form", "llmga-composer");
    this.note = make("p", "llmga-note");
    this.box = make("textarea", "llmga-box");
    this.box.rows = 2;
    this.box.setAttribute("aria-label", t("composer"));
    this.box.title = t("sendHint");
    this.box.addEventListener("keydown", (event) => this.type(event));
    this.box.addEventListener("input", () => this.keep());
    this.task = withTask ? this.makeTask() : null;
    this.element.append(...[this.note, this.task, this.box, this.makeRow()].filter(Boolean));
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
  }

  makeRow() {
    const row = make("div", "llmga-row");
    this.clear = button("clear", () => this.clearAll(), "clearHint");
    this.settings = button("settings", () => toggleAdvanced(this.chat.node), "settingsHint");
    this.again = button("regenerate", () => this.chat.regenerate(), "regenerateHint");
    this.cancel = button("cancel", () => this.stopEditing());
    this.stop = button("stop", () => this.chat.halt(), "stopHint");
    this.sender = button("send", null, "sendHint");
    this.sender.type = "submit";
    this.painter = button("paint", () => this.send(true), "paintHint");
    this.painter.classList.add("llmga-primary");
    const space = make("span", "llmga-space");
    row.append(this.clear, this.settings, space, this.again, this.cancel, this.stop, this.sender, this.painter);
    return row;
  }

  makeTask() {
    const choice = make("select", "llmga-choice");
    choice.setAttribute("aria-label", t("task"));
    choice.addEventListener("change", () => setWidget(this.chat.node, "task", choice.value));
    return choice;
  }

  // A message of before is rewritten by itself; what is new is the chat's draft, which Run takes along.
  keep() {
    if (this.editing === null) this.chat.draft = this.box.value;
    this.render();
  }

  get writing() {
    return typeof document !== "undefined" && document.activeElement === this.box;
  }

  // Without words, Send and paint paints the prompt that is there.
  async send(paint = false) {
    const { chat } = this;
    const text = this.box.value;
    if (chat.busy || chat.blocked || !chat.settled) return;
    if (!text.trim() && this.editing === null && chat.last) {
      if (paint) await chat.run(true);
      return;
    }
    const editing = this.editing;
    this.editing = null;
    this.box.value = "";
    this.onChange();
    if (!(await chat.send(text, editing ?? chat.turns.length, paint))) {
      this.editing = editing;
      this.box.value = text;
    }
    this.onChange();
  }

  clearAll() {
    this.stopEditing();
    this.chat.clear();
    this.box.value = "";
    this.onChange();
  }

  edit(at) {
    const turn = this.chat.turns[at];
    this.editing = at;
    this.box.value = turn.instruction ?? turn.text;
    this.onChange();
    this.box.focus();
  }

  stopEditing() {
    this.editing = null;
    this.box.value = this.chat.draft;
    this.onChange();
    this.box.focus();
  }

  type(event) {
    if (event.isComposing || event.keyCode === COMPOSING) return; // Enter chooses a Chinese word here
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      event.stopPropagation(); // Ctrl+Enter is ComfyUI's Run
      this.send(event.ctrlKey || event.metaKey);
    } else if (event.key === "Escape" && this.editing !== null) {
      this.stopEditing();
    } else if (event.key === "ArrowUp" && !this.box.value && !this.chat.busy) {
      const at = this.chat.turns.findLastIndex((turn) => turn.role === "user");
      if (at >= 0) this.edit(at);
      event.preventDefault();
    }
  }

  render() {
    const { chat } = this;
    if (this.editing === null && !this.writing && this.box.value !== chat.draft) this.box.value = chat.draft;
    const words = this.box.value.trim() !== "";
    this.box.disabled = chat.blocked;
    this.box.placeholder = chat.turns.length ? t("next") : t("first");
    this.sender.disabled = this.painter.disabled = chat.busy || chat.blocked || chat.settled === null;
    this.painter.textContent = t(words || !chat.last ? "paint" : "paintAgain");
    this.again.disabled = chat.busy || (!chat.last && !chat.live && !chat.instruction.trim());
    this.again.hidden = this.cancel.hidden === false || (!chat.last && !chat.live);
    this.clear.disabled = chat.busy;
    this.cancel.hidden = this.editing === null;
    this.stop.hidden = !chat.busy;
    this.sender.hidden = this.painter.hidden = chat.busy;
    this.settings.hidden = Boolean(this.task || globalThis.LiteGraph?.vueNodesMode);
    this.note.textContent = this.remark();
    if (this.task) this.renderTask();
  }

  remark() {
    if (this.chat.blocked) return t("linked");
    if (this.editing !== null) return t("editing");
    return this.chat.edited ? t("editedReply") : "";
  }

  renderTask() {
    const found = widget(this.chat.node, "task");
    const values = (found?.options?.values ?? []).filter((one) => typeof one === "string");
    const options = values.map((value) => {
      const option = make("option", "", beginning(value, MAX_TITLE));
      option.value = value;
      option.selected = value === found.value;
      return option;
    });
    this.task.replaceChildren(...options);
    this.task.disabled = !found || isLinked(this.chat.node, "task");
  }
}
