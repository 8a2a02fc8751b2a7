// The short words that were asked beside the prompt that came of them; what was asked is marked where it came back.
import { beginning, MAX_COMPARED, MAX_MARKS, shownInPart } from "./limits.js";
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
  const words = [...beginning(text, MAX_COMPARED).matchAll(WORD)].map((found) => found[0].toLowerCase());
  return new Set(words.filter((word) => word.length >= SHORT));
}

function column(title, whole, marked) {
  const text = beginning(whole, MAX_COMPARED);
  const box = document.createElement("div");
  const heading = document.createElement("h4");
  heading.textContent = title;
  const body = document.createElement("p");
  body.dir = "auto";
  let end = 0;
  let count = 0;
  for (const found of text.matchAll(WORD)) {
    if (!marked.has(found[0].toLowerCase())) continue;
    if (++count > MAX_MARKS) break;
    body.append(text.slice(end, found.index)); // a string is appended as text
    const mark = document.createElement("mark");
    mark.textContent = found[0];
    body.append(mark);
    end = found.index + found[0].length;
  }
  body.append(text.slice(end));
  box.append(heading, body);
  if (text.length < whole.length) box.append(remark(shownInPart(text.length, whole.length)));
  else if (count > MAX_MARKS) box.append(remark(t("marksInPart", { count: MAX_MARKS })));
  return box;
}

function remark(text) {
  const line = document.createElement("p");
  line.className = "llmga-remark";
  line.textContent = text;
  return line;
}
