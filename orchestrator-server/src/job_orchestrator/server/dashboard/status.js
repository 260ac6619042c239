// The states of jobs, services and clients. Each is shown by a colour, a shape and a word, because
// colour alone is not accessible to everybody.

import { h, svg } from "./dom.js";

/** Message of a job whose script runs: the state says the same. */
export const EXECUTING = "run.sh is executing";

/** States of a job, with their tone, icon and meaning. */
export const JOB = {
  Queued: { tone: "wait", icon: "clock", means: "is waiting in the queue" },
  Processing: { tone: "busy", icon: "send", means: "is being sent to a machine" },
  Submitted: { tone: "busy", icon: "ring", means: "is waiting for a free slot on a machine" },
  Running: { tone: "busy", icon: "spinner", means: "is executing run.sh" },
  Unknown: { tone: "warn", icon: "question", means: "is in an unknown state, because its client can't be reached" },
  Completed: { tone: "good", icon: "check", means: "has completed successfully" },
  Failed: { tone: "bad", icon: "cross", means: "has failed" },
  Invalid: { tone: "bad", icon: "triangle", means: "was refused because of its run.sh" },
  Killed: { tone: "calm", icon: "stop", means: "was terminated on request" },
  Cleaned: { tone: "calm", icon: "box", means: "has no files any more; they were removed" },
};

const SERVICE = {
  ok: { tone: "good", icon: "check", word: "OK" },
  degraded: { tone: "warn", icon: "triangle", word: "Degraded" },
  down: { tone: "bad", icon: "cross", word: "Down" },
  paused: { tone: "warn", icon: "pause", word: "Paused" },
};

const CLIENT = {
  connected: { tone: "good", icon: "check", word: "Connected" },
  polled: { tone: "calm", icon: "clock", word: "Polled" },
  unreachable: { tone: "bad", icon: "cross", word: "Unreachable" },
  unknown: { tone: "warn", icon: "question", word: "Not seen yet" },
};

export const WAITING = ["Queued", "Processing", "Submitted"];
export const RUNNING = ["Running", "Unknown"];
export const FAILED = ["Failed", "Invalid"];
const ENDED = new Set(["Completed", "Failed", "Invalid", "Killed", "Cleaned"]);

/** Return whether a job in this state has ended. */
export function hasEnded(status) {
  return ENDED.has(status);
}

/** Return the badge of a job's state. */
export function jobBadge(status) {
  const { tone, icon, means } = JOB[status] ?? { tone: "calm", icon: "question", means: "" };
  return badge(tone, icon, status, means);
}

/** Return the badge of a service's state. */
export function serviceBadge(state) {
  const { tone, icon, word } = SERVICE[state] ?? { tone: "calm", icon: "question", word: state };
  return badge(tone, icon, word);
}

/** Return the badge of a client's state. */
export function clientBadge(state) {
  const { tone, icon, word } = CLIENT[state] ?? { tone: "calm", icon: "question", word: state };
  return badge(tone, icon, word);
}

function badge(tone, name, word, title = null) {
  return h("span", { class: `badge ${tone}`, title }, icon(name), h("span", {}, word));
}

const SHAPES = {
  clock: () => [circle(6.25), path("M8 4.5V8l2.25 1.75")],
  send: () => [path("M8 12.75V3.5M4.25 7 8 3.25 11.75 7")],
  ring: () => [svg("circle", { cx: 8, cy: 8, r: 6.25, "stroke-dasharray": "2.4 2.5" })],
  spinner: () => [
    svg("circle", { cx: 8, cy: 8, r: 6.25, opacity: 0.3 }),
    svg("path", { class: "spin", d: "M8 1.75A6.25 6.25 0 0 1 14.25 8" }),
    svg("circle", { cx: 8, cy: 8, r: 2, fill: "currentColor", stroke: "none" }),
  ],
  question: () => [circle(6.25), path("M6 6.3a2 2 0 1 1 2.9 1.8c-.6.3-.9.6-.9 1.2"), dot(8, 11.4)],
  check: () => [disc(), path("M5.2 8.2 7.2 10.2 10.9 6", "inverse")],
  cross: () => [disc(), path("M5.9 5.9l4.2 4.2M10.1 5.9l-4.2 4.2", "inverse")],
  triangle: () => [path("M8 2.2 14.5 13.5H1.5Z"), path("M8 6.5v3.1"), dot(8, 11.6)],
  stop: () => [circle(6.25), svg("rect", { x: 5.75, y: 5.75, width: 4.5, height: 4.5, rx: 0.75, fill: "currentColor", stroke: "none" })],
  pause: () => [circle(6.25), path("M6.5 5.75v4.5M9.5 5.75v4.5")],
  box: () => [path("M2 3h12v3H2zM3.25 6v7h9.5V6M6.5 8.75h3")],
  sun: () => [circle(3), path("M8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3.05 3.05l1.06 1.06M11.89 11.89l1.06 1.06M3.05 12.95l1.06-1.06M11.89 4.11l1.06-1.06")],
  moon: () => [path("M13.5 9.7A6 6 0 0 1 6.3 2.5 6 6 0 1 0 13.5 9.7Z")],
  download: () => [path("M8 2v8.25M4.5 7 8 10.5 11.5 7M2.5 13.5h11")],
  back: () => [path("M9.5 3.5 5 8l4.5 4.5")],
  copy: () => [path("M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8Z")],
  file: () => [path("M4 1.75h5l3.5 3.5v9H4ZM9 1.75v3.5h3.5")],
};

/** Return an icon of 16 by 16 pixels in the colour of the text, hidden from screen readers. */
export function icon(name) {
  return svg(
    "svg",
    { class: "icon", viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" },
    SHAPES[name](),
  );
}

function circle(r) {
  return svg("circle", { cx: 8, cy: 8, r });
}

function disc() {
  return svg("circle", { cx: 8, cy: 8, r: 7, fill: "currentColor", stroke: "none" });
}

function dot(cx, cy) {
  return svg("circle", { cx, cy, r: 0.9, fill: "currentColor", stroke: "none" });
}

function path(d, className = null) {
  return svg("path", { d, class: className });
}
