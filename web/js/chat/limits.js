// How much of a text the page shows. A model, an endpoint or a workflow may send megabytes, and a page that lays them out
// stands still; the node's outputs and the copied prompt hold all of it.
import { t } from "./words.js";

export const MAX_BUBBLE = 20_000; // characters of one turn
export const MAX_CONVERSATION = 200_000; // characters of all turns; the newest are shown first …
export const MIN_BUBBLE = 200; // … and of every older one its beginning
export const MAX_PARTS = 100; // paragraphs and prompts of one turn
export const MAX_COMPARED = 8_000; // characters of a text that is compared word by word
export const MAX_MARKS = 400; // words of it that are marked
export const MAX_PICTURES = 16; // of one turn, as many as a conversation holds
export const MAX_TITLE = 80;
export const MAX_NOTE = 1000; // characters of what a node says beside its reply

// The first `count` characters, and not half of one.
export function beginning(text, count) {
  if (text.length <= count) return text;
  const half = /[\uD800-\uDBFF]/.test(text[count - 1]);
  return text.slice(0, half ? count - 1 : count);
}

// What is said below a text that is not shown whole.
export function shownInPart(shown, all) {
  return t("part", { shown: shown.toLocaleString("en"), all: all.toLocaleString("en") });
}

// What is said above a text of whose beginning the server sent nothing.
export function cutBefore(count) {
  return count > 0 ? t("cutBefore", { count: count.toLocaleString("en") }) : "";
}

// For each text, from the last to the first, how many of its characters are shown.
export function rooms(texts) {
  let left = MAX_CONVERSATION;
  return texts
    .toReversed()
    .map((text) => {
      const room = Math.max(MIN_BUBBLE, Math.min(MAX_BUBBLE, left));
      left -= Math.min(text.length, room);
      return room;
    })
    .toReversed();
}
