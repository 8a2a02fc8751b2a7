// Elements of the panel. Whatever a model, an endpoint or a workflow says reaches the page as textContent.
import { t } from "./words.js";

export function make(tag, name, text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text) element.textContent = text;
  return element;
}

export function button(key, action, hint = "") {
  const made = make("button", "llmga-button", t(key));
  made.type = "button";
  made.dataset.action = key;
  if (hint) made.title = t(hint);
  if (action) made.addEventListener("click", action);
  return made;
}

export function remark(text, more = "") {
  return make("p", `llmga-remark ${more}`.trim(), text);
}

export function paragraph(box, text) {
  const line = make("p", "llmga-text", text);
  line.dir = "auto";
  box.append(line);
}

// A picture of ComfyUI's folders, or a word in its place when it is gone; a click, or Enter, shows it large.
export function picture(address, kind, gone) {
  const shown = make("img", `llmga-picture ${kind}`.trim());
  shown.alt = t("picture");
  shown.loading = kind ? "eager" : "lazy"; // what was painted just now is in sight
  shown.title = t("enlarge");
  shown.addEventListener("error", () => shown.replaceWith(make("span", "llmga-picture", t(gone))));
  shown.tabIndex = 0;
  shown.setAttribute("role", "button");
  shown.addEventListener("click", () => shown.classList.toggle("llmga-large"));
  shown.addEventListener("keydown", (event) => {
    if (!["Enter", " "].includes(event.key) || event.ctrlKey || event.metaKey) return;
    event.preventDefault(); // a space scrolls
    shown.classList.toggle("llmga-large");
  });
  shown.src = address;
  return shown;
}

// ComfyUI listens on the document: Delete there removes nodes, Ctrl+V pastes them. Run and Save still reach it.
export function keepKeys(element) {
  element.addEventListener("keydown", (event) => {
    const forComfy = (event.ctrlKey || event.metaKey) && ["Enter", "s"].includes(event.key);
    if (!forComfy) event.stopPropagation();
  });
  for (const kind of ["copy", "cut", "paste", "keyup"]) element.addEventListener(kind, (event) => event.stopPropagation());
}

// Stays at the end of a list while it grows, until a reader scrolls up: calls what it returns to go there.
export function stayAtEnd(list) {
  let pinned = true;
  const follow = () => {
    if (pinned) list.scrollTop = list.scrollHeight;
  };
  list.addEventListener("scroll", () => (pinned = list.scrollTop + list.clientHeight >= list.scrollHeight - 8));
  list.addEventListener("load", follow, true); // a picture has come, and takes room
  return follow;
}

// The wheel scrolls what can be scrolled; else it zooms the graph.
export function keepWheel(element) {
  element.addEventListener("wheel", (event) => {
    if (element.scrollHeight > element.clientHeight) event.stopPropagation();
  });
}
