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
  hideRow(widget);
  return widget;
}

// Where Vue draws the nodes, those side panels list the box all the same: a row with a name and a canvas of its own.
function hideRow(widget) {
  const draw = widget.draw;
  widget.draw = function (context, ...rest) {
    const row = context.canvas.closest?.(".widget-item");
    if (row) row.style.display = "none";
    else draw?.call(this, context, ...rest);
  };
}

// The classic canvas shows every row, so that there the advanced ones are hidden until they are asked for; one that is
// connected stays. Nodes that Vue draws fold them away by themselves.
export function foldAdvanced(node) {
  const folds = !globalThis.LiteGraph?.vueNodesMode && !node.showAdvanced;
  for (const widget of node.widgets ?? []) {
    if (!widget.options?.advanced || widget.options.hidden) continue;
    const hidden = folds && !isLinked(node, widget.name);
    if (Boolean(widget.hidden) !== hidden) widget.hidden = hidden;
  }
}

export function toggleAdvanced(node) {
  node.showAdvanced = !node.showAdvanced;
  foldAdvanced(node);
  const [width, height] = node.size;
  node.setSize([width, Math.max(height, node.computeSize()[1])]);
  node.setDirtyCanvas?.(true, true);
}
