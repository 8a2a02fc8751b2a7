// As much of a page as the chat panel draws on: elements that count themselves and the characters given to them.
export const drawn = { elements: 0, characters: 0 };

class Element extends EventTarget {
  constructor(tag) {
    super();
    this.tagName = tag.toUpperCase();
    this.children = [];
    this.dataset = {};
    this.style = {};
    this.attributes = {};
    this.classes = new Set();
    this.classList = {
      add: (name) => this.classes.add(name),
      toggle: (name) => this.classes.delete(name) || this.classes.add(name),
    };
    drawn.elements += 1;
  }

  append(...items) {
    for (const item of items) if (typeof item === "string") drawn.characters += item.length;
    this.children.push(...items);
  }

  replaceChildren(...items) {
    this.children = [];
    this.append(...items);
  }

  set textContent(text) {
    this.children = [];
    this.append(String(text));
  }

  get lastChild() {
    return this.children.at(-1) ?? null;
  }

  get textContent() {
    return this.children.map((one) => (typeof one === "string" ? one : one.textContent)).join("");
  }

  setAttribute(name, value) {
    this.attributes[name] = value;
  }

  all(tag) {
    const below = this.children.filter((one) => typeof one !== "string");
    return below.flatMap((one) => [...(one.tagName === tag.toUpperCase() ? [one] : []), ...one.all(tag)]);
  }

  contains(other) {
    return this === other || this.children.some((one) => typeof one !== "string" && one.contains(other));
  }

  querySelector() {
    return null;
  }

  focus() {
    document.activeElement = this;
  }

  remove() {}
}

globalThis.document = { createElement: (tag) => new Element(tag), activeElement: null };
globalThis.ResizeObserver = class {
  observe() {}
  disconnect() {}
};

// What a call draws: new elements and characters.
export function drawing(call) {
  const before = { ...drawn };
  call();
  return { elements: drawn.elements - before.elements, characters: drawn.characters - before.characters };
}

// Processor time of this process in microseconds, the least of three calls: other programs add none.
export function work(call) {
  const spent = () => {
    const start = process.cpuUsage();
    call();
    const { user, system } = process.cpuUsage(start);
    return user + system;
  };
  return Math.min(spent(), spent(), spent());
}
