// web/js/chat/tags.js as the library reads: `split` of every reply, written for the test that compares.
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import assert from "node:assert/strict";
import { thoughtOf, promptsOf, split } from "../js/chat/tags.js";

test("the parts of every reply", () => {
  const replies = JSON.parse(readFileSync("replies.json", "utf8"));
  writeFileSync("parts.json", JSON.stringify(replies.map(split)));
  assert.ok(replies.length > 10);
});

test("a prompt loses its quotes, but not those of its words", () => {
  assert.deepEqual(promptsOf('<gen_image> "a fox" </gen_image>'), ["a fox"]);
  assert.deepEqual(promptsOf("<gen_image> 'a' and 'b' </gen_image>"), ["'a' and 'b'"]);
});

test("text that still grows never shows half a tag", () => {
  const reply = "Here. <gen_image> a fox </gen_image> ok";
  for (let end = 0; end <= reply.length; end++) {
    for (const part of split(reply.slice(0, end))) assert.ok(!/[<>]/.test(part.text), part.text);
  }
});

test("a thought is what stands between the marks that the node writes", () => {
  assert.equal(thoughtOf("<think>hm </think>Here."), "hm");
  assert.equal(thoughtOf("<think>still <b>thin"), "still <b>thin");
  assert.equal(thoughtOf("no thought"), "");
});
