// The conversation of LLMGA GILL Chat as bubbles: in a reply, each picture stands where it is between the words.
import { keepKeys, keepWheel, make, paragraph, picture, remark, stayAtEnd } from "../chat/dom.js";
import { beginning, cutBefore, MAX_BUBBLE, MAX_NOTE } from "../chat/limits.js";
import { paintedAddress } from "../chat/painted.js";
import { address } from "../chat/pictures.js";
import { t } from "../chat/words.js";

export class GILLView {
  constructor() {
    this.element = make("section", "llmga-panel");
    this.element.setAttribute("aria-label", t("conversation"));
    this.list = make("div", "llmga-list");
    this.list.setAttribute("role", "log");
    this.list.tabIndex = 0;
    this.scroll = stayAtEnd(this.list);
    this.element.append(this.list);
    this.pictures = new Map(); // by address: drawing anew does not load anew
    keepKeys(this.element);
    keepWheel(this.list);
  }

  // `talks` are what the nodes of one conversation said, the last of which is this node's.
  render(talks, message) {
    const items = [];
    talks.forEach((talk, i) => {
      const own = i === talks.length - 1;
      const record = own && talk.live !== null ? null : talk.record;
      if (record) items.push(...this.exchange(record, talk.painted, !own));
      else if (own && talk.live !== null) items.push(...this.unfinished(message, talk));
    });
    this.list.replaceChildren(...(items.length ? items : [remark(t("gillEmpty"))]));
    this.element.dataset.state = talks.at(-1).live !== null ? "writing" : items.length ? "done" : "";
    this.scroll();
  }

  exchange({ asked, pieces, remarks, notes }, painted, earlier) {
    const question = bubble("user", earlier);
    if (asked.images.length) question.append(this.row(asked.images.map((sha256) => address(sha256, "temp")), ""));
    paragraph(question, beginning(asked.text, MAX_BUBBLE));
    const answer = bubble("assistant", earlier);
    let left = painted.map(paintedAddress);
    for (const piece of pieces) {
      if (piece.text !== undefined) {
        if (piece.text.trim()) paragraph(answer, beginning(piece.text.trim(), MAX_BUBBLE));
        continue;
      }
      answer.append(this.figure(piece, left));
      left = []; // the node's outputs hold the first picture alone
    }
    if (!answer.childNodes.length) answer.append(remark(t("gillSilent")));
    const said = earlier ? [] : remarks.map((line) => remark(beginning(line, MAX_NOTE)));
    return [question, answer, ...said, ...notes.map((note) => remark(beginning(note, MAX_NOTE), "llmga-warning"))];
  }

  // A picture of the reply: what was found, what was painted, and what was decided.
  figure({ source, probability, images }, painted) {
    const figure = make("figure", "llmga-between");
    const shown = [...images.map((sha256) => address(sha256, "temp")), ...painted];
    if (shown.length) figure.append(this.row(shown, "llmga-painted"));
    else figure.append(make("span", "llmga-picture", t(source === "generate" ? "gillUnpainted" : "gillUnfound")));
    figure.append(make("figcaption", "llmga-remark", t(source, { percent: Math.round(100 * probability) })));
    return figure;
  }

  row(addresses, kind) {
    const box = make("div", "llmga-pictures");
    box.append(...addresses.map((one) => this.picture(one, kind)));
    return box;
  }

  picture(one, kind) {
    if (!this.pictures.has(one)) this.pictures.set(one, picture(one, kind, "paintedGone"));
    return this.pictures.get(one);
  }

  unfinished(message, { live, cut }) {
    const question = bubble("user", false);
    paragraph(question, beginning(message, MAX_BUBBLE));
    const answer = bubble("assistant", false);
    answer.dataset.state = "writing";
    if (cut) answer.append(remark(cutBefore(cut)));
    paragraph(answer, beginning(live, MAX_BUBBLE));
    answer.append(remark(t("writing")));
    return [question, answer];
  }
}

function bubble(role, earlier) {
  const box = make("article", "llmga-bubble");
  box.dataset.role = role;
  box.setAttribute("aria-label", role === "user" ? t("you") : "GILL");
  if (earlier) box.dataset.earlier = "";
  return box;
}
