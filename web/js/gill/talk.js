// What LLMGA GILL Chat said, kept with its node: the record of the last run, the pictures that were painted of it, and the
// words of a reply that is being written. A record comes from a server or out of a file, and may be anything.
import { MAX_PARTS } from "../chat/limits.js";
import { readPainted, withPictures, writePainted } from "../chat/painted.js";
import { hashes } from "../chat/pictures.js";
import { number } from "../chat/turns.js";

// Of the record: in a node's output and, so that a saved workflow shows it, in its properties.
export const KEY = "llmga_gill";
const SOURCES = ["generate", "retrieve"];
const HISTORY = "history";
const MAX_BEFORE = 32; // exchanges that are shown before the node's own
const TOKENS = /(?:\s*\[IMG\d+\])+/g; // how a picture stands in words that are being written

// { asked: { text, images }, pieces: [{ text } | { source, probability, images }], remarks, notes }, or null.
export function readRecord(value) {
  if (typeof value?.asked?.text !== "string" || !Array.isArray(value.pieces)) return null;
  const pieces = value.pieces.slice(0, MAX_PARTS).map(readPiece).filter(Boolean);
  const asked = { text: value.asked.text, images: hashes(value.asked.images) };
  return { asked, pieces, remarks: lines(value.remarks), notes: lines(value.notes) };
}

function lines(value) {
  return (Array.isArray(value) ? value : []).filter((one) => typeof one === "string").slice(0, MAX_PARTS);
}

function readPiece(value) {
  if (typeof value?.text === "string") return { text: value.text };
  if (!SOURCES.includes(value?.source) || !Number.isFinite(value.probability)) return null;
  return { source: value.source, probability: value.probability, images: hashes(value.images) };
}

export class Talk {
  constructor(node) {
    this.node = node;
    this.live = null; // the words so far
    this.cut = 0; // characters before them that are not shown
    this.writing = undefined; // the id of the prompt in which they are written
    this.promptId = undefined; // of the run whose pictures are shown
  }

  get record() {
    return readRecord(this.node.properties?.[KEY]);
  }

  get painted() {
    return readPainted(this.node);
  }

  setRecord(value) {
    const record = readRecord(value);
    if (!record) return;
    this.live = null;
    if (JSON.stringify(record) === JSON.stringify(this.record)) return; // of a run that had it already
    this.node.properties ??= {};
    this.node.properties[KEY] = record;
    writePainted(this.node, []);
  }

  setText(text, promptId, cut) {
    this.cut = number(cut);
    this.live = text.replace(TOKENS, " …");
    this.writing = promptId;
  }

  // At the end of that prompt, or of all.
  stop(promptId) {
    if (promptId === undefined || promptId === this.writing) this.live = null;
  }

  // Pictures of another run replace those that are shown; one run may paint several.
  addPainted(images, promptId) {
    if (!this.record) return;
    const before = promptId === this.promptId ? this.painted : [];
    this.promptId = promptId;
    writePainted(this.node, withPictures(before, images, 0, 0));
  }
}

// The nodes whose history leads to this one, the first first, and the node itself.
export function chain(node, kind) {
  const found = [node];
  while (found.length <= MAX_BEFORE) {
    const [first] = found;
    const slot = first.inputs?.findIndex((input) => input.name === HISTORY) ?? -1;
    const before = slot >= 0 && first.graph ? first.getInputNode?.(slot) : null;
    if (before?.comfyClass !== kind || found.includes(before)) break;
    found.unshift(before);
  }
  return found;
}
