// How ComfyUI shows our widgets: a box of the pack keeps the width of its node and stays out of the side panel, and what a
// beginner need not see is folded away on the classic canvas too.
import { isLinked } from "./graph.js";

// Adds an element to a node. It is neither in the prompt nor in the workflow: both stay as the schema describes them.
export function addBox(node, name, element, minHeight, label) {
  const widget = node.addDOMWidget(name, name, element, {
    serialize: false,
    hideInPanel: true,
    getMinHeight: () => minHeight,
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false;
  widget.label = label;
  // The side panel of ComfyUI gives what it lists its own width, for good.
  Object.defineProperty(widget, "width", { get: () => undefined, set() {}, configurable: true });
  // Older side panels know this word alone, which would also keep the box from nodes that Vue draws.
  Object.defineProperty(widget.options, "canvasOnly", { get: () => !globalThis.LiteGraph?.vueNodesMode, enumerable: true });
  return widget;
}

// Nodes that Vue draws read the schema; the classic canvas shows every row unless the widget itself says so.
export function foldAdvanced(node) {
  for (const widget of node.widgets ?? []) {
    if (widget.options?.advanced === undefined) continue;
    const folded = Boolean(widget.options.advanced) && !isLinked(node, widget.name);
    if (widget.advanced !== folded) widget.advanced = folded;
  }
}
