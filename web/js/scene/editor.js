// The box editor of LLMGA Scene Plan: it shows the plan of the widget, or the one that was made last, and writes changes
// into the widget. The workflow holds the widget alone.
import { button, keepKeys } from "../chat/dom.js";
import { t } from "../chat/words.js";
import { added, cleanName, emptyPlan, hit, moved, readPlan, removed, resized, withObject, writePlan } from "./plan.js";

const GOLDEN = 0.6180339887;
const HEIGHT = 240;
const STEP = 0.01; // of the picture, with one press of an arrow
const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
const PAGES = { PageUp: -1, PageDown: 1 };

export class SceneEditor {
  /** `widget` holds the plan as text; `shape()` gives width and height of the picture. */
  constructor(widget, shape) {
    this.widget = widget;
    this.shape = shape;
    this.proposed = "";
    this.selected = 0;
    this.drag = null;
    this.element = document.createElement("div");
    this.canvas = document.createElement("canvas");
    this.name = document.createElement("input");
    this.said = document.createElement("span");
    this.build();
    this.refresh();
  }

  /** The plan that is shown, or null where the widget holds text that is no plan. */
  get plan() {
    const text = this.widget.value?.trim() || this.proposed;
    return text ? readPlan(text) : emptyPlan();
  }

  /** What the node has planned in its last run. */
  propose(text) {
    this.proposed = typeof text === "string" ? text : "";
    this.refresh();
  }

  write(plan) {
    this.widget.value = writePlan(plan);
    this.widget.callback?.(this.widget.value);
    this.refresh();
  }

  build() {
    Object.assign(this.element.style, { display: "flex", flexDirection: "column", gap: "4px", width: "100%" });
    this.element.className = "llmga-scene";
    Object.assign(this.canvas.style, { width: "100%", height: `${HEIGHT}px`, touchAction: "none", borderRadius: "4px" });
    const bar = document.createElement("div");
    Object.assign(bar.style, { display: "flex", gap: "4px", alignItems: "center", flexWrap: "wrap" });
    this.name.title = t("objectName");
    this.name.className = "llmga-box";
    Object.assign(this.name.style, { flex: "1 1 100%", minWidth: "80px" });
    this.name.addEventListener("change", () => this.rename());
    keepKeys(this.element);
    bar.append(
      this.name,
      button("addObject", () => this.plan && this.write(added(this.plan)), "addObjectHint"),
      button("removeObject", () => this.remove(), "removeObjectHint"),
      button("keepPlan", () => this.keep(), "keepPlanHint"),
      button("clearPlan", () => this.clear(), "clearPlanHint"),
    );
    Object.assign(this.said.style, { fontSize: "11px", opacity: "0.8" });
    this.element.append(this.canvas, bar, this.said);
    this.canvas.addEventListener("pointerdown", (event) => this.down(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => (this.drag = null));
    this.canvas.addEventListener("dblclick", () => this.name.select());
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", t("canvas"));
    this.canvas.addEventListener("keydown", (event) => this.type(event));
    this.said.setAttribute("role", "status");
    if (typeof ResizeObserver !== "undefined") {
      this.observer = new ResizeObserver(() => this.draw());
      this.observer.observe(this.canvas);
    }
  }

  rename() {
    const plan = this.plan;
    const one = plan?.objects[this.selected];
    if (one) this.write(withObject(plan, this.selected, { name: cleanName(this.name.value, one.name) }));
  }

  remove() {
    const plan = this.plan;
    if (!plan?.objects[this.selected]) return;
    const index = this.selected;
    this.selected = Math.max(index - 1, 0);
    this.write(removed(plan, index));
  }

  keep() {
    if (this.plan) this.write(this.plan);
  }

  clear() {
    this.proposed = "";
    this.widget.value = "";
    this.widget.callback?.("");
    this.refresh();
  }

  down(event) {
    const plan = this.plan;
    const at = this.place(event);
    const found = plan && at && hit(plan, at[0], at[1]);
    if (!found) return;
    event.preventDefault();
    event.stopPropagation();
    this.canvas.setPointerCapture?.(event.pointerId);
    this.selected = found.index;
    this.drag = { corner: found.corner, at, box: plan.objects[found.index].box };
    this.refresh();
  }

  move(event) {
    const plan = this.plan;
    const at = this.place(event);
    if (!this.drag || !plan?.objects[this.selected] || !at) return;
    event.stopPropagation();
    const [dx, dy] = [at[0] - this.drag.at[0], at[1] - this.drag.at[1]];
    const box = (this.drag.corner ? resized : moved)(this.drag.box, dx, dy);
    this.write(withObject(plan, this.selected, { box }));
  }

  /** What the pointer does, with keys. */
  type(event) {
    const plan = this.plan;
    const one = plan?.objects[this.selected];
    if (!one || event.ctrlKey || event.metaKey || event.altKey) return;
    if (ARROWS[event.key]) {
      const box = (event.shiftKey ? resized : moved)(one.box, ...ARROWS[event.key]);
      this.write(withObject(plan, this.selected, { box }));
    } else if (PAGES[event.key]) {
      this.selected = (this.selected + PAGES[event.key] + plan.objects.length) % plan.objects.length;
      this.refresh();
    } else if (event.key === "Delete") this.remove();
    else return;
    event.preventDefault();
  }

  /** Where an event is, in parts of the picture. */
  place(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const { left, top, width, height } = this.frame(bounds.width, bounds.height);
    if (!width || !height) return null;
    return [(event.clientX - bounds.left - left) / width, (event.clientY - bounds.top - top) / height];
  }

  /** The picture within the canvas: as large as its shape allows. */
  frame(width, height) {
    const [w, h] = this.shape();
    const scale = Math.min(width / w, height / h);
    return { left: (width - w * scale) / 2, top: (height - h * scale) / 2, width: w * scale, height: h * scale };
  }

  refresh() {
    const plan = this.plan;
    const one = plan?.objects[Math.min(this.selected, (plan?.objects.length ?? 1) - 1)];
    if (document.activeElement !== this.name) this.name.value = one?.name ?? "";
    this.name.disabled = !one;
    this.said.textContent = this.remark(plan);
    this.draw();
  }

  remark(plan) {
    if (!plan) return t("foreignPlan");
    const count = plan.objects.length;
    if (!this.widget.value?.trim()) return t(count ? "planned" : "noPlan");
    return t(count === 1 ? "oneObject" : "objects", { count });
  }

  draw() {
    const ratio = globalThis.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const context = this.canvas.getContext?.("2d");
    if (!context || !width) return;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    context.scale(ratio, ratio);
    const frame = this.frame(width, height);
    context.fillStyle = "#2c2e32";
    context.fillRect(frame.left, frame.top, frame.width, frame.height);
    this.plan?.objects.forEach((one, index) => this.drawBox(context, frame, one, index));
  }

  drawBox(context, frame, { name, box: [x, y, width, height] }, index) {
    const colour = `hsl(${((0.02 + index * GOLDEN) % 1) * 360}, 80%, 62%)`;
    const [left, top] = [frame.left + x * frame.width, frame.top + y * frame.height];
    const [wide, high] = [width * frame.width, height * frame.height];
    context.strokeStyle = colour;
    context.fillStyle = colour;
    context.lineWidth = index === this.selected ? 3 : 1.5;
    context.strokeRect(left, top, wide, high);
    context.fillRect(left + wide - 6, top + high - 6, 8, 8);
    context.font = "12px system-ui, sans-serif";
    context.fillRect(left, top, context.measureText(name).width + 8, 16);
    context.fillStyle = "#101114";
    context.fillText(name, left + 4, top + 12);
  }

  destroy() {
    this.observer?.disconnect();
  }
}
