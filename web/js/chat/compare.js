// The short words that were asked beside the prompt that came of them; what was asked is marked where it came back.
import { t } from "./words.js";

const WORD = /[\p{L}\p{N}]+/gu;
const SHORT = 3; // "a", "in", "of" say nothing about whether a wish came back

export function comparison(asked, prompt) {
  const box = document.createElement("div");
  box.className = "llmga-compare";
  box.append(column(t("short"), asked, wordsOf(prompt)), column(t("refined"), prompt, wordsOf(asked)));
  return box;
}

function wordsOf(text) {
  const words = [...text.matchAll(WORD)].map((found) => found[0].toLowerCase());
  return new Set(words.filter((word) => word.length >= SHORT));
}

function column(title, text, marked) {
  const box = document.createElement("div");
  const heading = document.createElement("h4");
  heading.textContent = title;
  const body = document.createElement("p");
  body.dir = "auto";
  let end = 0;
  for (const found of text.matchAll(WORD)) {
    if (!marked.has(found[0].toLowerCase())) continue;
    body.append(text.slice(end, found.index)); // a string is appended as text
    const mark = document.createElement("mark");
    mark.textContent = found[0];
    body.append(mark);
    end = found.index + found[0].length;
  }
  body.append(text.slice(end));
  box.append(heading, body);
  return box;
}
