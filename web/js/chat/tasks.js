// The kind of request that is made with the next words.
import { setWidget, widget } from "./graph.js";

const CHANGE = "change";
const GO_ON = new Set(["chat", "describe", "edit", "story", "picture_book", CHANGE]); // said again as what they are

// What is said again is said as the same kind of request.
export function setTask(node, turn) {
  if (widget(node, "task")?.options?.values?.includes(turn?.task)) setWidget(node, "task", turn.task);
}

// A follow-up changes the picture before: a new idea, or a design, is asked for once. A task that was chosen since the last
// turn stays.
export function followUp(node, before) {
  const task = widget(node, "task")?.value;
  if (before && task === before.task && !GO_ON.has(task)) setTask(node, { task: CHANGE });
}
