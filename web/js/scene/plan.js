// The scene plan as the box editor changes it: reading, writing, and the geometry of boxes, none of which needs a page.
export const FORMAT = "llmga-scene";
export const MOST_OBJECTS = 12;
const SMALLEST = 0.01; // of the picture, as the library has it
const HANDLE = 0.035; // of the picture around the lower right corner

/** The plan in a text, or null for other text; what a person pasted is left to the node, which says what is wrong. */
export function readPlan(text) {
  let plan;
  try {
    plan = JSON.parse(text);
  } catch {
    return null;
  }
  if (plan?.format !== FORMAT || !Array.isArray(plan.objects)) return null;
  const isBox = (box) => Array.isArray(box) && box.length === 4 && box.every(Number.isFinite);
  return plan.objects.every((one) => typeof one?.name === "string" && isBox(one.box)) ? plan : null;
}

export function writePlan(plan) {
  return JSON.stringify(plan, null, 1);
}

export function emptyPlan() {
  return { format: FORMAT, version: 1, prompt: "", objects: [], background: "", negative: "" };
}

/** A copy of the plan with one object changed. */
export function withObject(plan, index, change) {
  return { ...plan, objects: plan.objects.map((one, i) => (i === index ? { ...one, ...change } : one)) };
}

export function moved([x, y, width, height], dx, dy) {
  return [held(x + dx, 1 - width), held(y + dy, 1 - height), width, height].map(rounded);
}

/** The box with its lower right corner moved. */
export function resized([x, y, width, height], dx, dy) {
  return [
    x,
    y,
    Math.min(Math.max(width + dx, SMALLEST), 1 - x),
    Math.min(Math.max(height + dy, SMALLEST), 1 - y),
  ].map(rounded);
}

/** Which object a point is on, and whether on its corner: the smallest one, for it may lie in a larger one. */
export function hit(plan, x, y) {
  const found = [];
  plan.objects.forEach(({ box: [left, top, width, height] }, index) => {
    const right = left + width;
    const bottom = top + height;
    const corner = Math.abs(x - right) < HANDLE && Math.abs(y - bottom) < HANDLE;
    const inside = x >= left && x <= right && y >= top && y <= bottom;
    if (corner || inside) found.push({ index, corner, area: width * height });
  });
  found.sort((a, b) => b.corner - a.corner || a.area - b.area);
  return found[0] ?? null;
}

/** A new object in the middle, or the plan as it is if it holds as many as it may. */
export function added(plan, name = "an object") {
  if (plan.objects.length >= MOST_OBJECTS) return plan;
  const shift = (plan.objects.length % 5) * 0.05;
  const one = { name, box: [0.3 + shift, 0.3 + shift, 0.3, 0.3].map(rounded), descriptions: [] };
  return { ...plan, objects: [...plan.objects, one] };
}

export function removed(plan, index) {
  return { ...plan, objects: plan.objects.filter((_, i) => i !== index) };
}

/** The name that an object may have: never empty, and no longer than the library takes. */
export function cleanName(text, before) {
  return text.replace(/\s+/g, " ").trim().slice(0, 120) || before;
}

function held(value, most) {
  return Math.min(Math.max(value, 0), Math.max(most, 0));
}

function rounded(value) {
  return Math.round(value * 1e4) / 1e4;
}
