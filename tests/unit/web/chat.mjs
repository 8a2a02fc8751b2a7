// A chat node without a page, and what its last run said.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { watchPrompts } from "../js/chat/prompts.js";

export const ASKED = { role: "user", text: "a fox", images: [], task: "refine", instruction: "a fox" };
export const ANSWERED = { role: "assistant", text: "<gen_image> a red fox </gen_image>", images: [] };
export const RECORD = { exchange: [ASKED, ANSWERED], prompts: ["a red fox"], earlier: [], omitted: 0 };
export const SECOND = { ...RECORD, exchange: [ASKED, { ...ANSWERED, text: "<gen_image> a grey fox </gen_image>" }], prompts: ["a grey fox"] };

export function node(values = {}) {
  const all = { transcript: "", instruction: "", seed: 0, task: "chat", ...values };
  const widgets = Object.entries(all).map(([name, value]) => ({ name, value }));
  widgets.find((one) => one.name === "task").options = { values: ["chat", "refine"] };
  const made = { id: 7, comfyClass: "LLMGA_Chat", graph: app.graph, widgets, inputs: [], properties: {} };
  app.graph.nodes = [made];
  return made;
}

export const value = (owner, name) => owner.widgets.find((one) => one.name === name).value;

// ComfyUI's app.queuePrompt, which hands a prompt of these nodes to api.queuePrompt; the server answers when `answer` is
// called, with the id or with a refusal.
export function queueing(promptId, ids = ["7"]) {
  let answer;
  const answered = new Promise((resolve, reject) => {
    answer = (refusal) => (refusal ? reject(refusal) : resolve({ prompt_id: promptId }));
  });
  const output = Object.fromEntries(ids.map((id) => [id, {}]));
  api.queuePrompt = async () => answered;
  app.queuePrompt = async (number, batch, targets) => {
    for (let i = 0; i < batch; i++) await api.queuePrompt(number, { output }, { partialExecutionTargets: targets });
    return true;
  };
  watchPrompts();
  return answer;
}
