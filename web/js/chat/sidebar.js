// A sidebar tab that shows one conversation at a time: that of the chat node that last wrote, or that one chooses.
import { app } from "../../../../scripts/app.js";
import { button, make } from "./dom.js";
import { chatNodes } from "./graph.js";
import { beginning, MAX_TITLE } from "./limits.js";
import { chatOf } from "./state.js";
import { ChatView } from "./view.js";
import { t } from "./words.js";

let followed = null; // the chat node that is shown
let shown = null; // { root, view, node } while the tab is open

export function follow(node) {
  if (!node || node === followed) return;
  followed = node;
  if (shown) draw();
}

// The graph was replaced, or a node has come or gone.
export function refresh() {
  if (shown) draw();
}

export function sidebarTab() {
  return {
    id: "llmga",
    icon: "pi pi-comments",
    title: "LLMGA",
    tooltip: t("title"),
    type: "custom",
    render(root) {
      root.style.height = "100%";
      shown = { root };
      draw();
    },
    destroy() {
      shown?.view?.destroy();
      shown = null;
    },
  };
}

function draw() {
  const nodes = chatNodes();
  if (!nodes.includes(followed)) followed = nodes.at(-1) ?? null;
  shown.view?.destroy();
  shown.view = followed && new ChatView(chatOf(followed), { withTask: true });
  const box = make("div", "llmga-sidebar");
  if (followed) box.append(header(nodes), shown.view.element);
  else box.append(make("p", "llmga-remark", t("none")));
  shown.root.replaceChildren(box);
}

function header(nodes) {
  const row = make("header", "llmga-row");
  const choice = make("select", "llmga-choice");
  choice.setAttribute("aria-label", t("follow"));
  nodes.forEach((node, i) => {
    const title = beginning(String(node.title), MAX_TITLE); // a title is anybody's text
    const option = make("option", "", `${title} #${node.id}`);
    option.value = String(i);
    option.selected = node === followed;
    choice.append(option);
  });
  choice.addEventListener("change", () => follow(nodes[Number(choice.value)]));
  const locate = button("locate", () => {
    app.canvas.centerOnNode(followed);
    app.canvas.selectNode?.(followed);
  });
  row.append(choice, locate);
  return row;
}
