// The page about one job.

import { apiUrl, getJson } from "./api.js";
import { CancelDialog } from "./cancel.js";
import { now, when } from "./clock.js";
import { fill, h } from "./dom.js";
import { downloadButton } from "./download.js";
import { Explanation } from "./explanation.js";
import { Feed } from "./feed.js";
import { Files } from "./files.js";
import { duration, host, plural, roughDuration, size } from "./format.js";
import { ran, waited } from "./job-row.js";
import { Output } from "./output.js";
import { holdButton, PriorityDialog } from "./queue-actions.js";
import { whoami } from "./session.js";
import { failurePage, loading } from "./states.js";
import { EXECUTING, hasEnded, icon, JOB, jobBadge } from "./status.js";
import { Timeline } from "./timeline.js";

/** Time for which changes are collected before the job is loaded again. */
const BATCH_MS = 250;
const QUEUE_MS = 5000;
/** Delays of further loads of a terminated job, whose output is fetched after its end. */
const LATE_OUTPUT_MS = [1000, 2000, 4000, 8000, 16_000];

/** Begin of the reason of a job that waits for other jobs: its position in the queue says nothing. */
const WAITS_FOR = "It waits for";

/** Show job `id`. `shell` is described at `showOverview`. */
export function showJob(shell, id) {
  return new JobPage(shell, id);
}

class JobPage {
  constructor(shell, id) {
    this.shell = shell;
    this.signal = shell.signal;
    this.id = id;
    this.heading = h("h1", { tabindex: -1 }, `Job ${id}`);
    this.badge = h("span", { class: "job-state" });
    this.actions = h("div", { class: "actions" });
    this.note = h("div", { class: "callout", hidden: true });
    this.details = h("dl", { class: "details" }, loading(6));
    this.timeline = new Timeline();
    this.output = new Output(id, this.signal);
    this.files = new Files(id, this.signal);
    this.dialog = new CancelDialog(id, () => this.cancelled());
    this.priority = new PriorityDialog(id, (job) => this.show(job));
    this.explanation = whoami.admin ? new Explanation(id, this.signal) : null;
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.lateOutput = [...LATE_OUTPUT_MS];
    fill(
      shell.main,
      h("nav", { class: "crumbs", "aria-label": "Back" }, h("a", { href: shell.overview }, icon("back"), "Overview")),
      h("div", { class: "job-head" }, h("div", { class: "job-title" }, this.heading, this.badge), this.actions),
      this.problem,
      this.note,
      h(
        "div",
        { class: "job-columns" },
        h("div", { class: "job-main" }, this.output.element, this.files.element),
        h(
          "div",
          { class: "job-side" },
          this.explanation && this.explanation.element,
          h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Details")), this.details),
          this.timeline.element,
        ),
      ),
      this.dialog.element,
      this.priority.element,
    );
    const timer = setInterval(() => this.job?.status === "Queued" && !document.hidden && this.load(), QUEUE_MS);
    this.signal.addEventListener("abort", () => {
      clearInterval(timer);
      this.timeline.close();
    });
    this.load();
  }

  async load() {
    try {
      const job = await getJson(`jobs/${this.id}`, {}, this.signal);
      this.show(job);
    } catch (error) {
      if (this.signal.aborted) return;
      if (error.status === 404) this.shell.notFound(error.message);
      else if (error.status === 401 || error.status === 403) this.shell.refused(error);
      else if (this.job === undefined) fill(this.shell.main, failurePage(error, () => showJob(this.shell, this.id)));
      return;
    }
    if (this.feed === undefined && !hasEnded(this.job.status)) this.follow();
    if (hasEnded(this.job.status)) this.awaitOutput();
  }

  /** Load the job once for several changes in a short time. */
  loadSoon() {
    this.reload ??= setTimeout(() => {
      this.reload = undefined;
      if (!this.signal.aborted) this.load();
    }, BATCH_MS);
  }

  follow() {
    this.feed = new Feed(apiUrl(`jobs/${this.id}/events`), {
      endless: false,
      event: (kind) => kind === "job" && this.loadSoon(),
      opened: () => {},
      state: (state, detail) => {
        this.shell.connection(state, detail);
        if (state === "ended") this.loadSoon();
      },
      refused: this.shell.refused,
    });
    this.shell.connected(this.feed);
    this.signal.addEventListener("abort", () => this.feed.close());
  }

  awaitOutput() {
    if (this.job.has_output || this.job.status !== "Killed" || this.lateOutput.length === 0) return;
    setTimeout(() => !this.signal.aborted && this.load(), this.lateOutput.shift());
  }

  cancelled() {
    this.heading.focus();
    this.loadSoon();
  }

  show(job) {
    const before = this.job;
    this.job = job;
    fill(this.heading, job.name || `Job ${job.id}`, job.name && h("span", { class: "job-number" }, `#${job.id}`));
    this.shell.title(`${job.status}: ${job.name || `Job ${job.id}`}`);
    if (before?.status !== job.status) {
      fill(this.badge, jobBadge(job.status));
      if (before !== undefined) this.shell.announce(`Job ${job.id} is now ${job.status}`);
    }
    this.showActions(before);
    this.showNote();
    this.showDetails();
    this.timeline.update(job.history, hasEnded(job.status));
    this.output.update(job);
    this.files.update(job);
    this.explanation?.update(job);
  }

  showActions(before) {
    const { job } = this;
    const key = `${job.status} ${job.has_output} ${job.held}`;
    if (before !== undefined && this.shownActions === key) return;
    this.shownActions = key;
    const hadFocus = this.actions.contains(document.activeElement);
    fill(this.actions, this.download(), job.status === "Queued" && this.queueButtons(), !hasEnded(job.status) && this.cancelButton());
    // The focused button was removed: move the focus to the heading next to it.
    if (hadFocus && document.activeElement === document.body) this.heading.focus();
  }

  download() {
    const { id, status, has_output: kept } = this.job;
    if (status === "Completed") return downloadButton("Download results", `download/${id}`, `job-${id}.zip`, "primary");
    if (hasEnded(status)) return kept && status !== "Cleaned" && downloadButton("Download output", `download_partial/${id}`, `job-${id}-partial.zip`);
    return status === "Running" && downloadButton("Download so far", `download_partial/${id}`, `job-${id}-partial.zip`);
  }

  queueButtons() {
    const priority = h("button", { class: "button", type: "button", on: { click: () => this.priority.open(this.job) } }, "Priority …");
    return [holdButton(this.job, (job) => this.changed(job), (text) => this.failed(text)), priority];
  }

  changed(job) {
    this.problem.hidden = true;
    this.show(job);
  }

  failed(text) {
    fill(this.problem, text);
    this.problem.hidden = false;
    this.loadSoon();
  }

  cancelButton() {
    const button = h("button", { class: "button danger", type: "button" }, icon("stop"), "Cancel job");
    button.addEventListener("click", () => this.dialog.open(this.job));
    return button;
  }

  /** Show a note about the state, if the state needs one. */
  showNote() {
    const { status, message, queue, waiting } = this.job;
    const { tone, icon: shape, means } = JOB[status] ?? { tone: "calm", icon: "question", means: "" };
    const lines = [];
    if (queue && !queue.reason.startsWith(WAITS_FOR)) lines.push(queueText(queue, waiting));
    // The message lacks a reason that is not part of the job, such as a rate.
    if (queue?.reason && !message.includes(queue.reason)) lines.push(queue.reason);
    if (message) lines.push(message);
    else if (status === "Unknown" || status === "Submitted") lines.push(`The job ${means}.`);
    const needed = lines.length > 0 && status !== "Completed" && message !== EXECUTING;
    this.note.hidden = !needed;
    if (needed) {
      this.note.className = `callout ${tone}`;
      fill(this.note, icon(shape), h("div", {}, lines.map((line) => h("p", {}, line))));
    }
  }

  showDetails() {
    const { job } = this;
    const rows = [
      ["User", job.user_id],
      ["Service", h("a", { href: `#/?service=${encodeURIComponent(job.service)}` }, job.service)],
      ["Client", job.client ? h("span", { title: job.client }, host(job.client)) : "–"],
      ["Exit code", job.exit_code ?? "–"],
      ["Submitted", when(job.created_at)],
      ["Waited", waited(job)],
      ["Ran", ran(job)],
      job.ended_at && ["Ended", when(job.ended_at)],
      job.time_limit_s && ["Time limit", duration(job.time_limit_s)],
      resources(job) && ["Asks for", resources(job)],
      selection(job) && ["Selected results", selection(job)],
      job.after.length > 0 && ["After", jobLinks(job.after)],
      job.afterany.length > 0 && ["After any end of", jobLinks(job.afterany)],
      job.has_output && ["Output", size(job.output_bytes)],
      job.tag && ["Tag", h("a", { href: `#/?tag=${encodeURIComponent(job.tag)}` }, job.tag)],
      job.priority !== 0 && ["Priority", job.priority],
      job.attempt > 1 && ["Attempt", job.attempt],
      job.failures > 0 && ["Failed attempts", job.max_attempts ? `${job.failures} of ${job.max_attempts}` : job.failures],
    ];
    fill(this.details, rows.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }
}

/** Links to the pages of jobs. */
function jobLinks(ids) {
  return ids.flatMap((id, number) => [number > 0 && ", ", h("a", { href: `#/jobs/${id}` }, id)]);
}

/** The files that its results have, empty if they have all. */
function selection({ outputs, results }) {
  return [results === "new" && "made or changed by the script", ...outputs].filter(Boolean).join(", ");
}

function resources({ cpus, memory_bytes: memory, gpus }) {
  return [cpus && plural(cpus, "CPU"), memory && `${size(memory)} of memory`, gpus && plural(gpus, "GPU")].filter(Boolean).join(", ");
}

/** Without an expected start if there is none, as while no machine can be used: the message says why. */
function queueText({ ahead, estimated_wait_s: wait }, waiting) {
  const position = ahead === 0 ? "Next in line" : `${plural(ahead, "job")} of this user ${ahead === 1 ? "is" : "are"} ahead`;
  if (wait === null || wait === undefined) return `${position}.`;
  const start = waiting?.expected_start;
  const half = roughDuration(wait);
  const most = start ? roughDuration((Date.parse(start.p90) - now()) / 1000) : half;
  return `${position}. Expected to start in ${half}${most === half ? "" : `, in nine of ten such cases within ${most}`}.`;
}
