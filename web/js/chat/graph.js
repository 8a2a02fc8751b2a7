// Nodes and widgets of the graph that is open, by the several ways ComfyUI names them.
import { app } from "../../../../scripts/app.js";

export const CHAT = "LLMGA_Chat";

const root = () => app.rootGraph ?? app.graph;

export function widget(node, name) {
  return node.widgets?.find((one) => one.name === name);
}

export function setWidget(node, name, value) {
  const found = widget(node, name);
  if (!found) return;
  found.value = value;
  found.callback?.(value, app.canvas, node);
}

export function isLinked(node, name) {
  return node.inputs?.some((input) => (input.widget?.name ?? input.name) === name && input.link != null) ?? false;
}

// Execution ids: "7" is a node of the graph on top, "3:7" is node 7 inside the subgraph node 3.
export function findExecuting(executionId) {
  let graph = root();
  let node;
  for (const id of String(executionId).split(":")) {
    node = nodeIn(graph, id);
    graph = node?.subgraph;
  }
  return node;
}

export function executionId(node) {
  return pathTo(root(), node)?.join(":");
}

function pathTo(graph, wanted) {
  for (const node of graph?.nodes ?? []) {
    if (node === wanted) return [node.id];
    const below = node.subgraph && pathTo(node.subgraph, wanted);
    if (below) return [node.id, ...below];
  }
}

// Locator ids, under which the page keeps outputs: "7", or the subgraph's own id and "7" inside it.
export function findLocated(locatorId) {
  const [id, subgraph] = String(locatorId).split(":").reverse();
  return nodeIn(subgraph ? root()?.subgraphs?.get(subgraph) : root(), id);
}

export function locatorId(node) {
  return node.graph === root() ? String(node.id) : `${node.graph?.id}:${node.id}`;
}

function nodeIn(graph, id) {
  return graph?.getNodeById(Number(id)) ?? graph?.getNodeById(id);
}

export function chatNodes(graph = root()) {
  return (graph?.nodes ?? []).flatMap((node) => {
    if (node.subgraph) return chatNodes(node.subgraph);
    return node.comfyClass === CHAT ? [node] : [];
  });
}

// A second node beside the first, with the same widgets and the same connections into it.
export function twin(node) {
  const graph = node.graph;
  const copy = node.clone();
  copy.pos = [node.pos[0] + node.size[0] + 40, node.pos[1] + 60];
  graph.add(copy);
  copy.setSize?.([...node.size]);
  node.inputs.forEach((input, slot) => {
    const link = input.link == null ? null : (graph.getLink?.(input.link) ?? graph.links[input.link]);
    if (link) graph.getNodeById(link.origin_id)?.connect(link.origin_slot, copy, slot);
  });
  return copy;
}

// Undo knows what the page did when it is told that it was done.
export function remember() {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
  if (tracker?.captureCanvasState) tracker.captureCanvasState();
  else tracker?.checkState?.();
  app.graph?.setDirtyCanvas?.(true, true);
}

export function complain(detail) {
  app.extensionManager?.toast?.add({ severity: "warn", summary: "LLMGA", detail, life: 6000 });
}
