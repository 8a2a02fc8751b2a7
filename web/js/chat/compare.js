// A prompt beside what was there before it: the prompt before, or the words that were asked. What is new is marked, what is
// gone is struck out.
import { make, remark } from "./dom.js";
import { beginning, MAX_COMPARED, MAX_MARKS, shownInPart } from "./limits.js";
import { t } from "./words.js";

const WORD = /[\p{L}\p{N}]+/gu;
const SMALL = new Set("a an and as at by for from in is it its of on or so the that this to with".split(" "));

export function comparison(before, prompt, isPrompt) {
  const box = make("div", "llmga-compare");
  box.append(make("p", "llmga-remark llmga-legend", t("legend")));
  box.append(column(t(isPrompt ? "promptBefore" : "short"), before, prompt, "del"));
  box.append(column(t("refined"), prompt, before, "mark"));
  return box;
}

// How often each word occurs.
function count(text) {
  const counts = new Map();
  for (const [word] of beginning(text, MAX_COMPARED).toLowerCase().matchAll(WORD)) {
    counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return counts;
}

function column(title, whole, other, tag) {
  const text = beginning(whole, MAX_COMPARED);
  const box = make("div");
  const body = make("p");
  body.dir = "auto";
  let end = 0;
  let marks = 0;
  for (const [start, stop] of onlyHere(text, other)) {
    if (++marks > MAX_MARKS) break;
    body.append(text.slice(end, start)); // a string is appended as text
    body.append(make(tag, "", text.slice(start, stop)));
    end = stop;
  }
  body.append(text.slice(end));
  box.append(make("h4", "", title), body);
  if (text.length < whole.length) box.append(remark(shownInPart(text.length, whole.length)));
  else if (marks > MAX_MARKS) box.append(remark(t("marksInPart", { count: MAX_MARKS })));
  return box;
}

// [start, end] of each run of words that the other text does not have, or has less often; a run of small words says nothing.
function onlyHere(text, other) {
  const left = count(other);
  const runs = [];
  let run = null; // [start, end, whether it says something]
  for (const found of text.matchAll(WORD)) {
    const word = found[0].toLowerCase();
    const there = left.get(word) ?? 0;
    if (there > 0) {
      left.set(word, there - 1);
      run = null;
      continue;
    }
    if (!run) runs.push((run = [found.index, 0, false]));
    run[1] = found.index + found[0].length;
    run[2] ||= !SMALL.has(word);
  }
  return runs.filter((one) => one[2]);
}
