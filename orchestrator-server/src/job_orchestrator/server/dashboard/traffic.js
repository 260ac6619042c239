// Two charts and totals of the last hour.

import { Chart, countSteps, timeSteps } from "./chart.js";
import { h, svg } from "./dom.js";
import { count, duration, plural } from "./format.js";

const GAP = 1.5;

/** Return the totals of the minutes. */
export function totals(minutes) {
  const sum = (field) => minutes.reduce((total, minute) => total + (minute[field] ?? 0), 0);
  const waits = minutes.filter(({ wait_s_mean: wait }) => wait !== null && wait !== undefined);
  return {
    submitted: sum("submitted"),
    completed: sum("completed"),
    failed: sum("failed"),
    cancelled: sum("cancelled"),
    wait_s_mean: waits.length > 0 ? waits.reduce((all, minute) => all + minute.wait_s_mean, 0) / waits.length : null,
    wait_s_max: waits.length > 0 ? Math.max(...waits.map((minute) => minute.wait_s_max)) : null,
  };
}

/** Create a chart of the jobs that ended in each minute: completed, failed (hatched) and cancelled, stacked. */
export function endedChart() {
  return new Chart({
    title: "Jobs per minute",
    legend: h("span", { class: "legend" }, key("good", "Completed"), key("bad", "Failed"), key("calm", "Cancelled")),
    describe: (minutes) => {
      const { completed, failed, cancelled } = totals(minutes);
      return `In the last hour ${plural(completed, "job")} completed, ${count(failed)} failed and ${count(cancelled)} were cancelled.`;
    },
    rows: ({ submitted, completed, failed, cancelled }) => [
      ["Submitted", count(submitted)],
      ["Completed", count(completed)],
      ["Failed", count(failed)],
      ["Cancelled", count(cancelled)],
    ],
    top: (minutes) => Math.max(3, ...minutes.map(({ completed, failed, cancelled }) => completed + failed + cancelled)),
    steps: countSteps,
    tick: count,
    nothing: "No job ended in the last hour",
    marks: (minutes, x, y, width) => {
      const drawn = minutes.flatMap((minute, index) => bars(minute, x(index), y, width));
      return drawn.length > 0 ? [hatch(), ...drawn] : drawn;
    },
  });
}

function bars({ completed, failed, cancelled }, x, y, width) {
  const bar = (from, to, attributes) =>
    to > from ? [svg("rect", { x: x + GAP / 2, width: Math.max(1, width - GAP), y: y(to), height: y(from) - y(to), ...attributes })] : [];
  return [
    ...bar(0, completed, { class: "bar-good" }),
    ...bar(completed, completed + failed, { class: "bar-bad" }),
    ...bar(completed, completed + failed, { fill: "url(#hatch)" }),
    ...bar(completed + failed, completed + failed + cancelled, { class: "bar-calm" }),
  ];
}

function hatch() {
  return svg(
    "defs",
    {},
    svg(
      "pattern",
      { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("rect", { class: "hatch-line", width: 1.5, height: 5 }),
    ),
  );
}

/** Create a chart of the waiting time of the jobs that started in each minute. */
export function waitChart() {
  return new Chart({
    title: "Waiting time",
    legend: h("span", { class: "legend" }, key("busy", "Mean of the jobs that started")),
    describe: (minutes) => {
      const { wait_s_mean: mean, wait_s_max: longest } = totals(minutes);
      if (mean === null) return "No job started in the last hour.";
      return `In the last hour jobs waited ${duration(mean)} on average, ${duration(longest)} at most.`;
    },
    rows: ({ wait_s_mean: mean, wait_s_max: longest }) => [
      ["Mean", duration(mean)],
      ["Longest", duration(longest)],
    ],
    top: (minutes) => Math.max(1, ...minutes.map(({ wait_s_mean: mean }) => mean ?? 0)),
    steps: timeSteps,
    tick: shortDuration,
    nothing: "No job started in the last hour",
    marks: (minutes, x, y, width) => runsOf(minutes).flatMap((run) => line(run, x, y, width)),
  });
}

/** Return the runs of consecutive minutes that have a value. */
function runsOf(minutes) {
  const runs = [];
  let open = null;
  minutes.forEach(({ wait_s_mean: value }, index) => {
    if (value === null || value === undefined) open = null;
    else {
      if (open === null) runs.push((open = []));
      open.push([index, value]);
    }
  });
  return runs;
}

function line(run, x, y, width) {
  const points = run.map(([index, value]) => [x(index) + width / 2, y(value)]);
  const [[firstX]] = points;
  const [lastX] = points[points.length - 1];
  const course = points.map(([px, py]) => `${px},${py}`).join("L");
  if (points.length === 1) return [svg("circle", { class: "dot-busy", cx: points[0][0], cy: points[0][1], r: 2.5 })];
  return [
    svg("path", { class: "area-busy", d: `M${firstX},${y(0)}L${course}L${lastX},${y(0)}Z` }),
    svg("path", { class: "line-busy", d: `M${course}` }),
  ];
}

function shortDuration(seconds) {
  if (seconds === 0) return "0";
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Number((seconds / 60).toPrecision(2))} min`;
  return `${Number((seconds / 3600).toPrecision(2))} h`;
}

function key(tone, text) {
  return h("span", { class: "legend-key" }, h("i", { class: `swatch ${tone}`, "aria-hidden": "true" }), text);
}
