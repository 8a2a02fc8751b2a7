// A chat that is bypassed or muted hands its instruction on as the prompt, to compare my words with the model's.
// ComfyUI passes links through a bypassed node, and nothing of its widgets.
import { app } from "../../../../scripts/app.js";
import { chatNodes, executionId, findExecuting, linkOf, linksFrom, widget } from "./graph.js";

const MUTED = 2;
const BYPASSED = 4;
const PROMPTS = new Set(["prompt", "prompts"]);

export function passInstructions() {
  const made = app.graphToPrompt;
  app.graphToPrompt = async function (...values) {
    const result = await made.apply(this, values);
    for (const node of chatNodes()) {
      if ([MUTED, BYPASSED].includes(node.mode)) pass(node, result.output);
    }
    return result;
  };
}

function pass(node, prompt) {
  const instruction = widget(node, "instruction")?.value;
  if (typeof instruction !== "string") return;
  const path = executionId(node)?.split(":").slice(0, -1) ?? [];
  node.outputs.forEach((output, slot) => {
    if (!PROMPTS.has(output.name)) return;
    for (const [id, name] of takers(node.graph, path, linksFrom(node.graph, node, slot))) {
      const inputs = prompt[id]?.inputs;
      // What has a link already got it through the bypass: the instruction comes from another node.
      if (inputs && !Array.isArray(inputs[name])) inputs[name] = instruction;
    }
  });
}

// The inputs at the end of links, as [execution id, name], through reroutes and in and out of subgraphs.
function takers(graph, path, links) {
  return links.flatMap((link) => {
    if (!link) return [];
    const target = graph.getNodeById(link.target_id);
    if (!target) {
      const around = path.length ? findExecuting(path.join(":")) : null; // the link leaves a subgraph
      return around ? takers(around.graph, path.slice(0, -1), linksFrom(around.graph, around, link.target_slot)) : [];
    }
    if (target.subgraph) {
      const inside = target.subgraph.inputs?.[link.target_slot]?.linkIds ?? [];
      return takers(target.subgraph, [...path, String(target.id)], inside.map((id) => linkOf(target.subgraph, id)));
    }
    if (target.isVirtualNode) return takers(graph, path, linksFrom(graph, target, 0));
    return [[[...path, target.id].join(":"), target.inputs[link.target_slot]?.name]];
  });
}
