// Nodes and widgets of the graph that is open, by the several ways ComfyUI names them.
import { app } from "../../../../scripts/app.js";
import { api } from "../../../../scripts/api.js";

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
  if (!node.graph) return false; // it is being made
  const slot = node.inputs?.findIndex((input) => (input.widget?.name ?? input.name) === name) ?? -1;
  return slot >= 0 && node.isInputConnected(slot);
}

export function linkOf(graph, id) {
  return graph?.getLink?.(id) ?? graph?.links?.[id];
}

// The links that begin at one output; newer pages warn when output.links is read.
export function linksFrom(graph, node, slot) {
  const links = graph?.links ?? {};
  const all = typeof links.values === "function" ? [...links.values()] : Object.values(links);
  return all.filter((link) => String(link?.origin_id) === String(node.id) && link.origin_slot === slot);
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

// Nodes that show one subgraph share it, and may do so at every level: each graph is looked into once, for thirty levels
// of two would be a billion.
function pathTo(graph, wanted, seen = new Set()) {
  seen.add(graph);
  for (const node of graph?.nodes ?? []) {
    if (node === wanted) return [node.id];
    const below = node.subgraph && !seen.has(node.subgraph) && pathTo(node.subgraph, wanted, seen);
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

export function nodesOf(kind, graph = root(), seen = new Set()) {
  seen.add(graph);
  return (graph?.nodes ?? []).flatMap((node) => {
    if (node.subgraph) return seen.has(node.subgraph) ? [] : nodesOf(kind, node.subgraph, seen);
    return node.comfyClass === kind ? [node] : [];
  });
}

export function chatNodes() {
  return nodesOf(CHAT);
}

// Takes prompts out of the queue, and stops the one of them that runs.
export async function cancel(ids) {
  const post = (path, body) =>
    api.fetchApi(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  if (ids.length) await post("/queue", { delete: ids });
  for (const id of ids.length ? ids : [undefined]) await post("/interrupt", id === undefined ? {} : { prompt_id: id });
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
