// Creation of elements; no other module does it. Texts from the server become text nodes or
// attributes, never markup: this application does not use innerHTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Create an HTML element. The properties `class`, `dataset` and `on` (listeners by event) are special;
 * every other property becomes an attribute: null and false omit it, true sets it to "". Children are
 * nodes, texts, and nested arrays of both; null and false are skipped.
 */
export function h(tag, properties = {}, ...children) {
  return build(document.createElement(tag), properties, children);
}

/** Create an SVG element, with the same parameters as `h`. */
export function svg(tag, properties = {}, ...children) {
  return build(document.createElementNS(SVG, tag), properties, children);
}

function build(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.setAttribute("class", value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "on") {
      for (const [event, listener] of Object.entries(value)) {
        element.addEventListener(event, listener);
      }
    } else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}

/** Replace the content of `element`. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

/** Set a text if it differs, so that screen readers and selections are not disturbed without need. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * List of elements below `parent`, one for each item. Items are identified by `key(item)`; the elements
 * of those that remain are reused, so that focus, hover and selection survive an update.
 * `create(item)` returns `{element, update(item)}`.
 */
export class KeyedList {
  constructor(parent, key, create) {
    this.parent = parent;
    this.key = key;
    this.create = create;
    this.parts = new Map();
  }

  show(items) {
    const stale = new Set(this.parts.keys());
    let next = this.parent.firstChild;
    for (const item of items) {
      const key = this.key(item);
      stale.delete(key);
      let part = this.parts.get(key);
      if (part === undefined) {
        part = this.create(item);
        this.parts.set(key, part);
      }
      part.update(item);
      if (part.element === next) next = next.nextSibling;
      else this.parent.insertBefore(part.element, next);
    }
    for (const key of stale) {
      this.parts.get(key).element.remove();
      this.parts.delete(key);
    }
  }
}
