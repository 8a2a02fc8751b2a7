// The pictures that were painted of a conversation, by the reply that they came of. They are kept beside the widgets, for no
// prompt needs them.
import { api } from "../../../../scripts/api.js";

const KEY = "llmga_painted";
const MAX_PAINTED = 64; // of a conversation
const MAX_NAME = 300;
const PLACES = new Set(["output", "temp", "input"]); // the folders that ComfyUI shows pictures of
const PICTURE = /\.(png|jpe?g|webp|gif)$/i;

// [{ turn, reply, filename, subfolder, type }]: the number of the turn, and of the reply among those to one question.
export function readPainted(node) {
  const kept = node.properties?.[KEY];
  return Array.isArray(kept) ? kept.slice(-MAX_PAINTED).map(readOne).filter(Boolean) : [];
}

export function writePainted(node, painted) {
  node.properties ??= {};
  if (painted.length) node.properties[KEY] = painted.slice(-MAX_PAINTED);
  else delete node.properties[KEY];
}

export function paintedAddress({ filename, subfolder, type }) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
}

// With those of a node's output, each once.
export function withPictures(painted, images, turn, reply) {
  const name = (one) => [one.turn, one.reply, one.filename, one.subfolder, one.type].join("\n");
  const all = new Map(painted.map((one) => [name(one), one]));
  for (const image of Array.isArray(images) ? images : []) {
    const one = readOne({ ...image, turn, reply });
    if (one) all.set(name(one), one);
  }
  return [...all.values()];
}

// Without those of the first replies at a turn, of which `gone` are no longer kept.
export function withReplies(painted, turn, gone) {
  const moved = painted.map((one) => (one.turn === turn ? { ...one, reply: one.reply - gone } : one));
  return moved.filter((one) => one.reply >= 0);
}

function readOne(value) {
  const { turn, reply, filename, subfolder = "", type } = value ?? {};
  if (!Number.isSafeInteger(turn) || !Number.isSafeInteger(reply) || !PLACES.has(type)) return null;
  if (![filename, subfolder].every((one) => typeof one === "string" && one.length <= MAX_NAME)) return null;
  return PICTURE.test(filename) ? { turn, reply, filename, subfolder, type } : null;
}
