// Elements are made here and nowhere else. Whatever comes from the server becomes a text node or an
// attribute, never markup: there is no innerHTML in this application.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element. Properties: `class`, `dataset`, `on` (listeners by event); everything else
 * becomes an attribute, but null and false leave it out and true sets it empty. Children: nodes and
 * texts, nested arrays of them; null and false are skipped.
 */
export function h(tag, properties = {}, ...children) {
  return build(document.createElement(tag), properties, children);
}

/** An SVG element, likewise. */
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

/** Replace what is in `element`. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

/** Set a text only if it differs, so that a screen reader and a selection are left in peace. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Make the children of `parent` show `items`, keeping the elements of those that stay: focus, hover
 * and selection survive an update. `create(item)` gives `{element, update(item)}`.
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
    let place = this.parent.firstChild;
    for (const item of items) {
      const key = this.key(item);
      stale.delete(key);
      let part = this.parts.get(key);
      if (part === undefined) {
        part = this.create(item);
        this.parts.set(key, part);
      }
      part.update(item);
      if (part.element === place) place = place.nextSibling;
      else this.parent.insertBefore(part.element, place);
    }
    for (const key of stale) {
      this.parts.get(key).element.remove();
      this.parts.delete(key);
    }
  }
}
