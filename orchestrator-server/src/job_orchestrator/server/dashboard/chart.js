// Charts of the last hour, drawn as SVG in the available width. The same numbers are in a table below
// each chart, and in a tooltip at the pointer.

import { h, setText, svg } from "./dom.js";
import { absolute, clockTime } from "./format.js";

const HEIGHT = 168;
const MARGIN = { top: 10, right: 8, bottom: 22, left: 44 };
const LABEL_PX = 62;

let charts = 0;

/**
 * Chart of values by minute.
 * - `title` and `describe(minutes)` are the text alternative of the chart;
 * - `rows(minute)` returns `[name, text]` pairs for the table and the tooltip;
 * - `top(minutes)` returns the largest value, `steps(top)` the values at the axis, `tick(value)` the
 *   label of one of them;
 * - `marks(minutes, x, y, width)` returns the drawn elements; `nothing` is shown if there are none.
 */
export class Chart {
  constructor({ title, legend, ...options }) {
    this.options = options;
    this.minutes = [];
    charts += 1;
    this.titleId = `chart-${charts}-title`;
    this.descriptionId = `chart-${charts}-description`;
    this.title = svg("title", { id: this.titleId }, title);
    this.description = svg("desc", { id: this.descriptionId });
    this.svg = svg("svg", {
      class: "chart",
      role: "img",
      "aria-labelledby": `${this.titleId} ${this.descriptionId}`,
      height: HEIGHT,
      width: "100%",
    });
    this.tip = h("div", { class: "chart-tip", hidden: true, "aria-hidden": "true" });
    this.table = h("div", { class: "chart-table", tabindex: 0, role: "region", "aria-label": `${title}, as a table` });
    const details = h("details", {}, h("summary", {}, "Show as a table"), this.table);
    details.addEventListener("toggle", () => this.fillTable());
    this.details = details;
    this.plot = h("div", { class: "chart-plot" }, this.svg, this.tip);
    this.element = h(
      "figure",
      { class: "card figure" },
      h("figcaption", { class: "card-head" }, h("h2", {}, title), legend),
      this.plot,
      details,
    );
    this.svg.addEventListener("pointermove", (event) => this.showTip(event));
    this.svg.addEventListener("pointerleave", () => this.hideTip());
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  /** Show the values of `minutes`, oldest first. */
  update(minutes) {
    this.minutes = minutes;
    this.draw();
    if (this.details.open) this.fillTable();
  }

  draw() {
    const width = this.plot.clientWidth;
    if (width === 0 || this.minutes.length === 0) return;
    const { describe, top, tick, marks, nothing } = this.options;
    const steps = this.options.steps(top(this.minutes));
    const highest = steps[steps.length - 1];
    const inner = width - MARGIN.left - MARGIN.right;
    const floor = HEIGHT - MARGIN.bottom;
    this.step = inner / this.minutes.length;
    const x = (index) => MARGIN.left + index * this.step;
    const y = (value) => floor - (value / highest) * (floor - MARGIN.top);
    this.cursor = svg("rect", { class: "chart-cursor", y: MARGIN.top, height: floor - MARGIN.top, width: this.step, visibility: "hidden" });
    const drawn = marks(this.minutes, x, y, this.step);
    if (drawn.length === 0) drawn.push(svg("text", { class: "chart-nothing", x: MARGIN.left + inner / 2, y: HEIGHT / 2 - 4, "text-anchor": "middle" }, nothing));
    setText(this.description, describe(this.minutes));
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(
      this.title,
      this.description,
      ...steps.flatMap((value) => [
        svg("line", { class: "chart-grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
        svg("text", { class: "chart-label", x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, tick(value)),
      ]),
      ...this.timeLabels(x),
      this.cursor,
      ...drawn,
    );
  }

  /** Return labels at round minutes, as many as fit. */
  timeLabels(x) {
    const every = [10, 15, 20, 30].find((minutes) => minutes * this.step >= LABEL_PX) ?? 30;
    return this.minutes.flatMap(({ at }, index) => {
      const minute = new Date(at).getMinutes();
      const first = index < 2 || index > this.minutes.length - 3;
      if (minute % every !== 0 || first) return [];
      return [
        svg("text", { class: "chart-label", x: x(index) + this.step / 2, y: HEIGHT - 5, "text-anchor": "middle" }, clockTime(at)),
      ];
    });
  }

  showTip(event) {
    const bounds = this.svg.getBoundingClientRect();
    const index = Math.floor((event.clientX - bounds.left - MARGIN.left) / this.step);
    const minute = this.minutes[index];
    if (minute === undefined) {
      this.hideTip();
      return;
    }
    const x = MARGIN.left + index * this.step;
    this.cursor.setAttribute("x", x);
    this.cursor.setAttribute("visibility", "visible");
    this.tip.replaceChildren(
      h("strong", {}, clockTime(minute.at)),
      ...this.options.rows(minute).map(([name, text]) => h("div", {}, h("span", {}, name), h("b", {}, text))),
    );
    this.tip.hidden = false;
    const beyond = x > bounds.width / 2;
    // Set by script, because the content security policy forbids style attributes.
    this.tip.style.left = beyond ? "auto" : `${x + this.step + 8}px`;
    this.tip.style.right = beyond ? `${bounds.width - x + 8}px` : "auto";
  }

  hideTip() {
    this.tip.hidden = true;
    this.cursor?.setAttribute("visibility", "hidden");
  }

  fillTable() {
    if (!this.details.open || this.minutes.length === 0) return;
    const { rows } = this.options;
    const names = rows(this.minutes[0]).map(([name]) => name);
    const head = ["Minute", ...names].map((name) => h("th", { scope: "col" }, name));
    const body = this.minutes.toReversed().map((minute) =>
      h(
        "tr",
        {},
        h("th", { scope: "row", title: absolute(minute.at) }, clockTime(minute.at)),
        rows(minute).map(([, text]) => h("td", {}, text)),
      ),
    );
    this.table.replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
  }
}

/** Return about four round counts, from 0 to at least `top`. */
export function countSteps(top) {
  const rough = Math.max(top, 1) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough - 1e-9);
  return stepsOf(Math.max(1, step), top);
}

/** Return round durations in seconds, from 0 to at least `top`. */
export function timeSteps(top) {
  const round = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 43200, 86400];
  return stepsOf(round.find((size) => size >= top / 3.5) ?? 86400 * Math.ceil(top / 86400 / 3), top);
}

function stepsOf(step, top) {
  const count = Math.max(1, Math.ceil(top / step - 1e-9));
  return Array.from({ length: count + 1 }, (_, index) => index * step);
}
