// The prompts that this page queues: which chats each one answers, and of which workflow it is. ComfyUI tells neither to
// anybody, so that both are noted as the prompts pass.
import { app } from "../../../../scripts/app.js";
import { api } from "../../../../scripts/api.js";
import { chatNodes, executionId } from "./graph.js";
import { chatOf } from "./state.js";

const MAX_PROMPTS = 1000;
const prompts = new Map(); // prompt id -> { from: where it was queued, targets: none where all of it runs }
let running; // the id of the prompt that runs
let rounds = 0; // calls of app.queuePrompt that have not returned
let asked = new Set(); // the chats that got a prompt in this round: a batch gives each of them several

// A workflow that is being opened has its graph in place before the page calls it the active one.
const place = () => ({ workflow: app.extensionManager?.workflow?.activeWorkflow, graph: (app.rootGraph ?? app.graph)?.id });

// Whether what comes of a prompt, by default of the one that runs, is about the workflow that is open. ComfyUI sends it to
// the page whatever is open there, and names nodes by numbers that another workflow has too.
export function isHere(promptId = running) {
  if (!prompts.has(promptId)) return true;
  const [{ from }, open] = [prompts.get(promptId), place()];
  return from.graph === open.graph && (from.workflow === open.workflow || from.workflow?.path === open.workflow?.path);
}

// Whether a prompt was queued for this node too, or for others alone.
export function isMeant(node, promptId) {
  const targets = prompts.get(promptId)?.targets ?? [];
  return !targets.length || targets.includes(executionId(node));
}

export function runningPrompt() {
  return running;
}

// Both hand on ComfyUI's own promises, so that the stack of its errors names ComfyUI alone.
export function watchPrompts() {
  const { queuePrompt } = app;
  app.queuePrompt = function (...values) {
    rounds += 1;
    const queued = queuePrompt.apply(this, values);
    Promise.resolve(queued).then(endRound, endRound);
    return queued;
  };
  const post = api.queuePrompt;
  api.queuePrompt = function (number, prompt, options, ...rest) {
    const from = place();
    const targets = (options?.partialExecutionTargets ?? []).map(String);
    const answered = answeredBy(prompt?.output, targets);
    const send = () => post.call(this, number, prompt, options, ...rest);
    const pictures = answered.map((node) => chatOf(node).keeping).filter(Boolean);
    const answer = pictures.length ? Promise.all(pictures).then(send) : send();
    const take = (taken) => typeof taken?.prompt_id === "string" && note(taken.prompt_id, { from, targets }, answered);
    Promise.resolve(answer).then(take, () => {});
    return answer;
  };
  api.addEventListener("execution_start", ({ detail }) => (running = detail?.prompt_id));
  for (const end of ["execution_success", "execution_error", "execution_interrupted", "reconnecting"]) {
    api.addEventListener(end, () => (running = undefined));
  }
}

// The chats that wait for a prompt and are in this one.
function answeredBy(output, targets) {
  return chatNodes().filter((node) => {
    const id = executionId(node);
    const isAsked = output && id in output && (!targets.length || targets.includes(id));
    return isAsked && (chatOf(node).awaited || asked.has(node));
  });
}

function note(promptId, about, answered) {
  prompts.set(promptId, about);
  if (prompts.size > MAX_PROMPTS) prompts.delete(prompts.keys().next().value);
  for (const node of answered) {
    asked.add(node);
    chatOf(node).took(promptId);
  }
}

// When nothing is being queued any more, who has no prompt was refused, and gets no answer.
function endRound() {
  rounds -= 1;
  if (rounds) return;
  asked = new Set();
  for (const chat of chatNodes().map(chatOf)) if (chat.awaited) chat.stop();
}
