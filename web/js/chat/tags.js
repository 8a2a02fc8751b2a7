// What a reply says to the person, and what it says to the painter: llmga/chat/tags.py in the browser, where the text
// still grows. Tests in Node and in a browser hold the two together. Unlike there, HTML entities stay as they were written.
const FENCE = /(?:```[\w+-]{0,40}\s{0,99}|`)?/.source;
const FENCE_END = /(?:\s{0,99}```(?:[\w+-]{0,40}[ \t]{0,99}(?:\n|$))?|`)?/.source;
const MARK = /(?:<|&lt;)\s{0,99}(\/\s{0,99})?gen_im(?:g|age)\s{0,99}(?:>|&gt;)/.source;
const TAG = new RegExp(FENCE + MARK + FENCE_END, "gi");
const THINK = /(?:<|&lt;)\s{0,9}(\/\s{0,9})?think(?:ing)?\s{0,9}(?:>|&gt;)/gi;
const QUOTES = { '"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»", "「": "」", "『": "』" };

// [{ kind: "text" | "prompt", text }], in order; empty parts are left out.
export function split(reply) {
  const text = withoutUnfinishedTag(withoutThinking(reply));
  const parts = [];
  let kind = "text";
  let start = 0;
  for (const tag of text.matchAll(TAG)) {
    add(parts, kind, text.slice(start, tag.index));
    start = tag.index + tag[0].length;
    kind = tag[1] === undefined ? "prompt" : "text";
  }
  add(parts, kind, text.slice(start));
  return parts;
}

// What stands in <think> … </think>, where the node puts a thought whatever its own marks are; open while it is written.
export function thoughtOf(reply) {
  const opener = reply.indexOf("<think>");
  if (opener < 0) return "";
  const closer = reply.lastIndexOf("</think>");
  return reply.slice(opener + 7, closer < opener ? undefined : closer).trim();
}

export function promptsOf(reply) {
  return split(reply).filter((part) => part.kind === "prompt").map((part) => part.text);
}

function add(parts, kind, raw) {
  const text = kind === "prompt" ? bare(raw.trim()) : raw.trim();
  if (text) parts.push({ kind, text });
}

function withoutThinking(reply) {
  let kept = [];
  let start = 0;
  let thinking = false;
  for (const tag of reply.matchAll(THINK)) {
    if (tag[1] !== undefined) {
      if (!thinking) kept = [];
      start = tag.index + tag[0].length;
      thinking = false;
    } else if (!thinking) {
      kept.push(reply.slice(start, tag.index));
      thinking = true;
    }
  }
  if (!thinking) kept.push(reply.slice(start));
  return kept.join("").trim();
}

// What a stream that still runs, or the token limit, left of a last tag: "a cat </gen_im".
function withoutUnfinishedTag(text) {
  const at = text.lastIndexOf("<");
  if (at < 0) return text;
  const name = text.slice(at + 1).replace(/\s+/g, "").replace(/^\//, "").toLowerCase();
  return "gen_image".startsWith(name) || "gen_img".startsWith(name) ? text.slice(0, at) : text;
}

function bare(block) {
  const text = block.endsWith("```") ? block.replace(/`+$/, "").trim() : block;
  const inner = text.slice(1, -1);
  const wrapped = text.length > 1 && QUOTES[text[0]] === text.at(-1) && !inner.includes(text.at(-1));
  return wrapped ? inner.trim() : text;
}

// A reply with other prompts in the places of its own. One without tags, such as a caption, is its prompt.
export function withPrompts(reply, prompts) {
  const parts = split(reply);
  if (!parts.some((part) => part.kind === "prompt")) return prompts.join("\n\n");
  const left = [...prompts];
  const block = (text) => `<gen_image> ${text} </gen_image>`;
  return parts.map((part) => (part.kind === "text" ? part.text : block(left.shift() ?? part.text))).join("\n");
}
