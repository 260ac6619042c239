// The output of a job on stdout and stderr, while the job runs and after its end.

import { fill, h } from "./dom.js";
import { downloadLink } from "./download.js";
import { plural, size } from "./format.js";
import { LogStream } from "./log-stream.js";
import { KEPT_CHARS, LogText } from "./log-text.js";
import { describe } from "./states.js";
import { hasEnded } from "./status.js";

const STREAMS = ["stdout", "stderr"];
/** Distance from the end, in pixels, that counts as the end. */
const NEAR_END_PX = 24;

/** Card with a tab for each stream. Only the stream of the visible tab is read. */
export class Output {
  constructor(id, signal) {
    this.tabs = STREAMS.map((stream) =>
      h("button", { id: `tab-${stream}`, type: "button", role: "tab", "aria-controls": `panel-${stream}`, on: { click: () => this.select(stream) } }, stream),
    );
    this.panes = STREAMS.map((stream) => new Pane(id, stream));
    this.wrap = toggle("Wrap lines", true, (on) => this.panes.forEach(({ text }) => text.element.classList.toggle("wrapped", on)));
    this.follow = toggle("Follow", true, (on) => this.panes.forEach((pane) => pane.setFollow(on)));
    for (const pane of this.panes) pane.onFollow = (on) => this.follow.setAttribute("aria-pressed", String(on));
    const tabList = h("div", { class: "segments", role: "tablist", "aria-label": "Output stream", on: { keydown: (event) => this.key(event) } }, this.tabs);
    this.element = h(
      "section",
      { class: "card output" },
      h("div", { class: "card-head" }, h("h2", {}, "Output"), h("div", { class: "card-tools" }, this.follow, this.wrap, tabList)),
      this.panes.map(({ element }) => element),
    );
    this.signal = signal;
    signal.addEventListener("abort", () => this.panes.forEach((pane) => pane.stop()));
    this.choose("stdout");
  }

  /** Update the card after a change of the job. */
  update(job) {
    this.job = job;
    this.follow.hidden = hasEnded(job.status);
    for (const pane of this.panes) pane.update(job);
    this.pane().start();
  }

  pane() {
    return this.panes[STREAMS.indexOf(this.stream)];
  }

  select(stream) {
    if (stream === this.stream) return;
    this.pane().stop();
    this.choose(stream);
    if (this.job) this.pane().start();
  }

  choose(stream) {
    this.stream = stream;
    STREAMS.forEach((name, index) => {
      const chosen = name === stream;
      this.tabs[index].setAttribute("aria-selected", String(chosen));
      this.tabs[index].tabIndex = chosen ? 0 : -1;
      this.panes[index].element.hidden = !chosen;
    });
  }

  key(event) {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    event.preventDefault();
    this.select(STREAMS[1 - STREAMS.indexOf(this.stream)]);
    this.tabs[STREAMS.indexOf(this.stream)].focus();
  }
}

/** Panel of one stream: its text, and a note about its state. */
class Pane {
  constructor(id, stream) {
    this.id = id;
    this.stream = stream;
    this.text = new LogText(`${stream} of the job`);
    this.dropped = h("p", { class: "log-note", hidden: true });
    this.foot = h("p", { class: "log-note", role: "status" });
    this.element = h(
      "div",
      { id: `panel-${stream}`, role: "tabpanel", "aria-labelledby": `tab-${stream}`, class: "log-pane" },
      this.dropped,
      this.text.element,
      this.foot,
    );
    this.follow = true;
    this.onFollow = () => {};
    this.text.element.addEventListener("scroll", () => this.scrolled());
    this.source = new LogStream(id, stream, {
      text: (text) => this.append(text),
      state: (state, detail) => this.showState(state, detail),
      rerun: () => this.clear(),
    });
  }

  update({ status }) {
    this.status = status;
    this.source.over = hasEnded(status);
    this.showState(this.state, this.detail);
  }

  /** Discard the text, because another attempt of the job has its own output. */
  clear() {
    this.text.clear();
    this.dropped.hidden = true;
  }

  start() {
    this.source.start();
  }

  stop() {
    this.source.stop();
  }

  append(text) {
    this.text.append(text);
    if (this.text.droppedChars > 0) this.showDropped();
    this.showState(this.state, this.detail);
    if (this.follow) this.toEnd();
  }

  showDropped() {
    if (this.dropped.hidden) {
      const full = downloadLink("Download all of it", `jobs/${this.id}/logs`, { stream: this.stream }, `job-${this.id}-${this.stream}.txt`);
      this.droppedText = h("span", {});
      fill(this.dropped, this.droppedText, full);
      this.dropped.hidden = false;
    }
    this.droppedText.textContent = `Only the last ${size(KEPT_CHARS)} are shown; ${size(this.text.droppedChars)} before that are omitted. `;
  }

  showState(state, detail) {
    this.state = state;
    this.detail = detail;
    fill(this.foot, this.describeState(state, detail));
    this.foot.classList.toggle("bad", state === "error");
    this.text.element.hidden = this.text.empty;
  }

  describeState(state, detail) {
    const waits = this.status === "Queued" || this.status === "Processing" || this.status === "Submitted";
    if (state === "error") return describe(detail);
    if (state === "lost") return "The connection was lost; reconnecting …";
    if (waits) return "The job has not started.";
    if (state === "done") return this.text.empty ? `The job wrote nothing to ${this.stream}.` : `End of ${this.stream} · ${plural(this.text.lines, "line")}`;
    if (state === "open") return this.text.empty ? `Nothing on ${this.stream} yet.` : "Live";
    return "Loading …";
  }

  setFollow(on) {
    this.follow = on;
    if (on) this.toEnd();
  }

  toEnd() {
    const { element } = this.text;
    element.scrollTop = element.scrollHeight;
  }

  /** Stop following when the reader scrolls up; start again when the reader scrolls to the end. */
  scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.text.element;
    const atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    if (atEnd === this.follow) return;
    this.follow = atEnd;
    this.onFollow(atEnd);
  }
}

function toggle(label, on, changed) {
  const button = h("button", { class: "button small toggle", type: "button", "aria-pressed": String(on) }, label);
  button.addEventListener("click", () => {
    const now = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(now));
    changed(now);
  });
  return button;
}
