// A sidebar tab that shows one conversation at a time: that of the chat node that last wrote, or that one chooses.
import { app } from "../../../../scripts/app.js";
import { button, make } from "./dom.js";
import { chatNodes } from "./graph.js";
import { beginning, MAX_TITLE } from "./limits.js";
import { chatOf } from "./state.js";
import { ChatView } from "./view.js";
import { t } from "./words.js";

let followed = null; // the chat node that is shown
let shown = null; // { root, header, view } while the tab is open

// Nobody who writes there is taken elsewhere: the keys that follow would be ComfyUI's shortcuts.
export function follow(node) {
  if (!node || node === followed || shown?.view?.element.contains(document.activeElement)) return;
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

// The view stays while its node does, with what is being written in it.
function draw() {
  const nodes = chatNodes();
  if (!nodes.includes(followed)) followed = nodes.find((one) => one.id === followed?.id) ?? nodes.at(-1) ?? null;
  if (!shown.header || shown.view?.chat.node !== followed) open();
  shown.header.replaceChildren(...(followed ? choices(nodes) : []));
}

function open() {
  shown.view?.destroy();
  shown.view = followed ? new ChatView(chatOf(followed), { withTask: true }) : undefined;
  shown.header = make("header", "llmga-row");
  const box = make("div", "llmga-sidebar");
  box.append(shown.header, shown.view?.element ?? make("p", "llmga-remark", t("none")));
  shown.root.replaceChildren(box);
}

function choices(nodes) {
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
    if (app.canvas.graph !== followed.graph) app.canvas.setGraph?.(followed.graph); // it is in a subgraph
    app.canvas.centerOnNode(followed);
    app.canvas.selectNode?.(followed);
  });
  return [choice, locate];
}
