// The pictures of a conversation, by the hash of their pixels: nothing else of a record ever names a file.
import { api } from "../../../../scripts/api.js";
import { complain } from "./graph.js";
import { MAX_PICTURES } from "./limits.js";
import { t } from "./words.js";

const SHA256 = /^[0-9a-f]{64}$/;
const FOLDER = "llmga"; // below ComfyUI's temp folder while a reply is new, below its input folder once it is kept

export function hashes(value) {
  if (!Array.isArray(value)) return [];
  return value.slice(0, MAX_PICTURES).filter((one) => typeof one === "string" && SHA256.test(one));
}

export function address(sha256, place) {
  return api.apiURL(`/view?filename=${sha256}.png&subfolder=${FOLDER}&type=${place}`);
}

// Brings a new reply's pictures to the input folder, where the transcript finds them, as LoadImage finds its own.
async function keep(shas) {
  for (const sha256 of shas) {
    const shown = await fetch(address(sha256, "temp"));
    if (!shown.ok) throw Object.assign(new Error(`HTTP ${shown.status}`), { isGone: shown.status === 404 });
    const body = new FormData();
    body.append("image", await shown.blob(), `${sha256}.png`);
    body.append("subfolder", FOLDER);
    body.append("type", "input");
    body.append("overwrite", "true");
    const stored = await api.fetchApi("/upload/image", { method: "POST", body });
    if (!stored.ok) throw new Error(`HTTP ${stored.status} ${stored.statusText ?? ""}`.trim());
  }
}

// Whether they are there; what is in the way is said.
export async function stored(shas) {
  try {
    await keep(new Set(shas));
    return true;
  } catch (error) {
    complain(error.isGone ? t("pictureGone") : t("pictureNotKept", { reason: error.message }));
    return false;
  }
}
