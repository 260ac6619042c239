// The bar that shows how much of something is used.

import { h, setText } from "./dom.js";

/** Bar that shows `value` as a part of `limit`, with a text. */
export class Meter {
  constructor(label) {
    this.bar = h("span", { class: "meter-bar" });
    this.text = h("span", { class: "meter-text" });
    this.track = h("span", { class: "meter-track", role: "meter", "aria-label": label, "aria-valuemin": 0 }, this.bar);
    this.element = h("span", { class: "meter" }, this.track, this.text);
  }

  update(value, limit, text, tone = "") {
    const known = value !== null && value !== undefined && limit > 0;
    const share = known ? Math.min(1, value / limit) : 0;
    this.bar.style.width = `${100 * share}%`;
    this.track.className = `meter-track ${tone}`;
    this.track.setAttribute("aria-valuemax", limit ?? 0);
    this.track.setAttribute("aria-valuenow", known ? Math.min(value, limit) : 0);
    this.track.setAttribute("aria-valuetext", text);
    setText(this.text, text);
  }
}
