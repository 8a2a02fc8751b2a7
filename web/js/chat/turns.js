// Turns and records as the page keeps them in a workflow. It may come from anybody: what is not as it should be is left out.
import { hashes } from "./pictures.js";

const MAX_TURNS = 200;
const MAX_NOTES = 4;

export function readTurn(value) {
  if (typeof value?.text !== "string" || !["user", "assistant"].includes(value.role)) return null;
  const turn = { role: value.role, text: value.text, images: hashes(value.images) };
  for (const key of ["task", "instruction"]) if (typeof value[key] === "string") turn[key] = value[key];
  return turn;
}

export function readTurns(text) {
  if (!text.trim()) return [];
  try {
    const turns = JSON.parse(text).slice(0, MAX_TURNS).map(readTurn);
    const alternate = turns.every((turn, i) => turn?.role === (i % 2 ? "assistant" : "user"));
    return alternate && turns.length % 2 === 0 ? turns : null;
  } catch {
    return null;
  }
}

export function writeTurns(turns) {
  return turns.length ? JSON.stringify(turns) : "";
}

export function readRecord(value) {
  const exchange = Array.isArray(value?.exchange) ? value.exchange.map(readTurn) : [];
  if (exchange.length !== 2 || exchange[0]?.role !== "user" || exchange[1]?.role !== "assistant") return null;
  const earlier = Array.isArray(value.earlier) ? value.earlier.slice(0, MAX_TURNS).map(readTurn).filter(Boolean) : [];
  return {
    exchange,
    earlier,
    prompts: strings(value.prompts),
    notes: strings(value.notes).slice(0, MAX_NOTES),
    thought: typeof value.thought === "string" ? value.thought : "",
    omitted: Number.isSafeInteger(value.omitted) ? value.omitted : 0,
    edited: value.edited === true,
    speed: { tokens: number(value.speed?.tokens), rate: number(value.speed?.rate) },
  };
}

// Whether two records answer the same question.
export function sameQuestion(one, other) {
  const [a, b] = [one.exchange[0], other.exchange[0]];
  return a.instruction === b.instruction && a.task === b.task && a.images.join() === b.images.join();
}

function strings(value) {
  return Array.isArray(value) ? value.filter((one) => typeof one === "string") : [];
}

export function number(value) {
  return Number.isFinite(value) && value > 0 ? value : 0;
}
