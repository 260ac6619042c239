// The row of a job in the list.

import { since, when } from "./clock.js";
import { fill, h } from "./dom.js";
import { duration } from "./format.js";
import { EXECUTING, hasEnded, jobBadge } from "./status.js";

/** Return the table with the rows in `body`. */
export function jobTable(body) {
  const column = (name, text) => h("th", { scope: "col", class: `col-${name}` }, text);
  return h(
    "table",
    { class: "job-table" },
    h(
      "thead",
      {},
      h("tr", {}, column("status", "State"), column("job", "Job"), column("service", "Service"), column("user", "User"), column("at", "Submitted"), column("wait", "Waited"), column("run", "Ran"), column("message", "Message")),
    ),
    body,
  );
}

/** Create the row of a job, for a `KeyedList`. */
export function jobRow({ id }) {
  const cell = (name) => h("td", { class: `col-${name}` });
  const cells = Object.fromEntries(["status", "service", "user", "at", "wait", "run", "message"].map((name) => [name, cell(name)]));
  const link = h("a", { class: "job-link", href: `#/jobs/${id}` });
  const tag = h("span", { class: "tag" });
  const under = h("span", { class: "job-under" });
  const title = h("th", { class: "col-job", scope: "row" }, h("div", { class: "job-cell" }, link, tag), under);
  const { status, service, user, at, wait, run, message } = cells;
  const element = h("tr", {}, status, title, service, user, at, wait, run, message);
  let shown = "";
  const update = (job) => {
    const text = JSON.stringify(job);
    if (text === shown) return;
    shown = text;
    fill(status, jobBadge(job.status));
    fill(link, job.name ? [h("span", { class: "job-name" }, job.name), " "] : null, h("span", { class: "job-id" }, job.name ? `#${id}` : `Job ${id}`));
    fill(tag, job.tag);
    tag.hidden = !job.tag;
    fill(under, `${job.status} · ${job.service} · user ${job.user_id}`);
    fill(service, job.service);
    fill(user, job.user_id);
    fill(at, when(job.created_at));
    fill(wait, waited(job));
    fill(run, ran(job));
    fill(message, job.message === EXECUTING ? "" : job.message);
    message.title = job.message;
  };
  return { element, update };
}

/** Return the time that a job waited before it started. */
export function waited({ status, created_at: created, started_at: started, ended_at: ended }) {
  if (started) return duration(between(created, started));
  return hasEnded(status) ? duration(ended ? between(created, ended) : null) : since(created);
}

/** Return the time that a job ran. */
export function ran({ status, started_at: started, ended_at: ended, ran_s: seconds }) {
  // By the clock of the machine, which goes on while the server is away.
  if (seconds !== null && seconds !== undefined) return duration(seconds);
  if (!started) return "–";
  if (ended) return duration(between(started, ended));
  return hasEnded(status) ? "–" : since(started);
}

function between(from, to) {
  return Math.max(0, (Date.parse(to) - Date.parse(from)) / 1000);
}
