// The history of a job: its states with their durations, as a bar and as a list.

import { now, when } from "./clock.js";
import { fill, h } from "./dom.js";
import { duration } from "./format.js";
import { icon, JOB } from "./status.js";

/** Maximum number of entries. Of a longer history, the first and the last entries are shown. */
const MAX_ENTRIES = 40;
const FIRST_ENTRIES = 5;
const TICK_MS = 1000;

const PHASES = [
  { label: "Waiting", tone: "wait", states: ["Queued", "Processing", "Submitted"] },
  { label: "Running", tone: "busy", states: ["Running"] },
  { label: "Unknown", tone: "warn", states: ["Unknown"] },
];

/** Card with the time line. Call `close` when it is removed from the page. */
export class Timeline {
  constructor() {
    this.bar = h("div", { class: "phases", "aria-hidden": "true" });
    this.legend = h("p", { class: "phase-legend" });
    this.list = h("ol", { class: "timeline" });
    this.element = h(
      "section",
      { class: "card" },
      h("div", { class: "card-head" }, h("h2", {}, "Time line")),
      h("div", { class: "phase-frame" }, this.bar, this.legend),
      this.list,
    );
    this.history = [];
    this.timer = setInterval(() => !this.over && !document.hidden && this.tick(), TICK_MS);
  }

  /** Show a history, oldest entry first. */
  update(history, over) {
    this.history = history;
    this.over = over;
    fill(this.list, this.entries());
    this.tick();
  }

  close() {
    clearInterval(this.timer);
  }

  entries() {
    const { history } = this;
    const last = history.length - 1;
    const hidden = history.length > MAX_ENTRIES ? history.length - MAX_ENTRIES : 0;
    return history.flatMap((entry, index) => {
      if (hidden > 0 && index === FIRST_ENTRIES) return [h("li", { class: "timeline-gap" }, `${hidden} more changes`)];
      if (index > FIRST_ENTRIES && index < FIRST_ENTRIES + hidden) return [];
      return [this.entry(entry, index === last)];
    });
  }

  entry({ at, to, why, seconds }, last) {
    const { tone, icon: shape } = JOB[to] ?? { tone: "calm", icon: "question" };
    const time = h("span", { class: "timeline-time" });
    if (last && !this.over) this.present = time;
    else if (!last) time.textContent = duration(seconds);
    return h(
      "li",
      { class: last ? "present" : null },
      h("span", { class: `timeline-mark ${tone}` }, icon(shape)),
      h("div", { class: "timeline-line" }, h("strong", {}, to), time),
      h("div", { class: "timeline-note" }, when(at), why ? ` · ${why}` : ""),
    );
  }

  /** Update the time that the job has spent in its present state. */
  tick() {
    const { history } = this;
    if (history.length === 0) return;
    const last = history[history.length - 1];
    const soFar = this.over ? 0 : Math.max(0, (now() - Date.parse(last.at)) / 1000);
    if (this.present && !this.over) this.present.textContent = duration(Math.floor(soFar));
    const spent = (entry, index) => (index === history.length - 1 ? soFar : entry.seconds);
    const phases = PHASES.map(({ label, tone, states }) => ({
      label,
      tone,
      seconds: history.reduce((all, entry, index) => all + (states.includes(entry.to) ? spent(entry, index) : 0), 0),
    })).filter(({ seconds }) => seconds > 0);
    this.showPhases(phases);
  }

  showPhases(phases) {
    const whole = phases.reduce((all, { seconds }) => all + seconds, 0);
    fill(
      this.bar,
      phases.map(({ tone, seconds }) => {
        const part = h("span", { class: `phase ${tone}` });
        part.style.flexGrow = String(Math.max(seconds / whole, 0.015));
        return part;
      }),
    );
    fill(
      this.legend,
      phases.map(({ label, tone, seconds }) =>
        h("span", { class: "legend-key" }, h("i", { class: `swatch ${tone}`, "aria-hidden": "true" }), `${label} ${duration(seconds >= 10 ? Math.floor(seconds) : seconds)}`),
      ),
    );
    this.bar.parentNode.hidden = phases.length === 0;
  }
}
