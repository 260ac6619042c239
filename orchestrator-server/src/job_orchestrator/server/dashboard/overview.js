// The overview: totals, services, clients, charts, and the list of jobs.

import { apiUrl, getJson } from "./api.js";
import { Feed } from "./feed.js";
import { fill, h, setText } from "./dom.js";
import { count, duration } from "./format.js";
import { address, Jobs } from "./jobs.js";
import { AllLimits, OwnLimits } from "./limits.js";
import { Clients, Services } from "./resources.js";
import { hasToken, whoami } from "./session.js";
import { commands, loading, placeholder } from "./states.js";
import { icon } from "./status.js";
import { endedChart, totals, waitChart } from "./traffic.js";

const STATS_MS = 15_000;
/** Time for which events are collected before the list is updated. */
const BATCH_MS = 200;
const SERVICES_MS = 10_000;
/** Share of failed jobs from which on the total is highlighted; below it, some scripts just fail. */
const MANY_FAILED_SHARE = 0.25;

/**
 * Show the overview. `shell` offers the element to fill (`main`), the display of the connection's state,
 * and the signal that aborts when the view is left.
 */
export function showOverview(shell, parameters) {
  return new Overview(shell, parameters);
}

class Overview {
  constructor(shell, parameters) {
    this.shell = shell;
    this.signal = shell.signal;
    this.changed = new Map();
    this.serviceNames = [];
    this.tiles = new Tiles();
    this.services = new Services(() => {});
    this.clients = new Clients();
    this.limits = whoami.admin ? new AllLimits(this.signal) : new OwnLimits();
    this.ended = endedChart();
    this.waits = waitChart();
    this.resources = h("div", { class: "columns" }, loadingCard(), loadingCard());
    this.charts = h("div", { class: "columns" });
    this.jobs = new Jobs({
      parameters,
      go: (filters) => shell.go(address(filters)),
      first: () => this.firstJob(),
      signal: this.signal,
    });
    fill(
      shell.main,
      h("h1", { class: "visually-hidden", tabindex: -1 }, "Overview"),
      this.tiles.element,
      this.resources,
      this.charts,
      this.jobs.element,
    );
    this.follow();
    // Statistics of all users and the load of clients are for administrators only.
    if (whoami.admin) this.every(STATS_MS, () => this.loadStats());
    else this.every(SERVICES_MS, () => this.loadServices());
  }

  /** Apply another query of the address, which concerns the list of jobs only. */
  apply(parameters) {
    this.jobs.apply(parameters);
  }

  follow() {
    const user = whoami.admin ? null : whoami.user_id;
    const feed = new Feed(apiUrl("events", { user_id: user }), {
      endless: true,
      event: (kind, data) => this.take(kind, data),
      opened: (resumed) => resumed || this.jobs.load(),
      state: this.shell.connection,
      refused: this.shell.refused,
    });
    this.shell.connected(feed);
    this.signal.addEventListener("abort", () => feed.close());
  }

  take(kind, data) {
    if (kind === "services") this.showServices(data);
    else if (kind === "clients") this.showClients(data.clients);
    else if (kind === "job") {
      if (this.changed.size === 0) setTimeout(() => this.flush(), BATCH_MS);
      this.changed.set(data.id, data);
    }
  }

  flush() {
    const { changed } = this;
    this.changed = new Map();
    if (!this.signal.aborted) this.jobs.merge(changed);
  }

  showServices({ services, use }) {
    this.services.update(services);
    if (whoami.admin) this.limits.update(use ?? []);
    this.tiles.showServices(services);
    this.serviceNames = services.map(({ name }) => name);
    const names = this.serviceNames.join();
    if (this.offered !== names) {
      this.offered = names;
      this.jobs.offerServices(this.serviceNames);
    }
    this.showCards();
  }

  showClients(clients) {
    this.clients.update(clients);
    this.tiles.showClients(clients);
    this.showCards();
  }

  /** Replace the skeletons by the cards, once. */
  showCards() {
    const left = this.services.element;
    const right = [whoami.admin && this.clients.element, this.limits.element];
    const cards = [h("div", { class: "stack" }, left), h("div", { class: "stack" }, right)];
    if (!this.resources.contains(this.services.element)) fill(this.resources, cards);
  }

  async loadServices() {
    const [services, { limits }] = await Promise.all([getJson("services", {}, this.signal), getJson("whoami", {}, this.signal)]);
    if (limits?.use) this.limits.update(limits);
    this.showServices(services);
  }

  async loadStats() {
    await this.limits.load();
    const { minutes, wait_s_mean, wait_s_max } = await getJson("stats", {}, this.signal);
    // With the jobs that still wait.
    this.tiles.showHour({ ...totals(minutes), wait_s_mean, wait_s_max });
    if (this.ended.element.parentNode === null) fill(this.charts, this.ended.element, this.waits.element);
    this.ended.update(minutes);
    this.waits.update(minutes);
  }

  /** Call `action` now and every `ms` milliseconds while the page is visible. Errors are ignored: the
   *  next call is another attempt. */
  every(ms, action) {
    const once = () => {
      if (!document.hidden) action().catch(() => {});
    };
    once();
    const timer = setInterval(once, ms);
    document.addEventListener("visibilitychange", once, { signal: this.signal });
    this.signal.addEventListener("abort", () => clearInterval(timer));
  }

  /** Return instructions to submit the first job. */
  firstJob() {
    const service = this.serviceNames[0] ?? "example";
    const user = whoami.user_id ?? 1;
    const token = hasToken() ? '  -H "Authorization: Bearer $JO_TOKEN" \\\n' : "";
    const text = `printf '#!/bin/bash\\necho Hello from job-orchestrator\\n' > run.sh
curl ${apiUrl("upload")} \\
${token}  -F file=@run.sh -F user_id=${user} -F service=${service}`;
    return placeholder(
      "send",
      "No jobs yet",
      h("p", {}, "Submit the first job from a terminal. It appears here automatically."),
      commands(text, "Commands that submit a job"),
    );
  }
}

/** Row of tiles with the most important numbers. */
class Tiles {
  constructor() {
    this.running = tile("Running", "active");
    this.waiting = tile("Waiting", "waiting");
    this.completed = tile("Completed", "completed");
    this.failed = tile("Failed", "failed");
    this.wait = tile("Mean wait");
    this.clients = tile("Clients");
    const { running, waiting, completed, failed, wait, clients } = this;
    const shown = whoami.admin ? [running, waiting, completed, failed, wait, clients] : [running, waiting];
    this.element = h("ul", { class: "tiles", "aria-label": "At a glance" }, shown.map(({ element }) => element));
  }

  showServices(services) {
    const sum = (field) => services.reduce((all, service) => all + service[field], 0);
    this.running.show(count(sum("running")), `of ${count(sum("max_runs"))} allowed`);
    this.waiting.show(count(sum("waiting")), "for their start");
  }

  showClients(clients) {
    const reachable = clients.filter(({ state }) => state === "connected" || state === "polled").length;
    const unreachable = clients.length - reachable;
    this.clients.show(`${count(reachable)}/${count(clients.length)}`, unreachable > 0 ? `${count(unreachable)} not reachable` : "all reachable", unreachable > 0 ? "bad" : "");
  }

  showHour({ completed, failed, cancelled, wait_s_mean: mean, wait_s_max: longest }) {
    this.completed.show(count(completed), "in the last hour");
    const many = failed > MANY_FAILED_SHARE * (completed + failed);
    this.failed.show(count(failed), cancelled > 0 ? `and ${count(cancelled)} cancelled` : "in the last hour", many ? "bad" : "");
    this.wait.show(duration(mean), mean === null ? "no job waited" : `${duration(longest)} at most`);
  }
}

function tile(label, state = null) {
  const value = h("span", { class: "tile-value" }, "–");
  const note = h("span", { class: "tile-note" }, "\u00a0");
  const mark = h("span", { class: "tile-mark", hidden: true }, icon("triangle"));
  const content = [h("span", { class: "tile-label" }, label), h("span", { class: "tile-line" }, value, mark), note];
  const inner = state ? h("a", { href: address({ state }) }, content) : h("div", {}, content);
  return {
    element: h("li", { class: "tile" }, inner),
    show(text, below, tone = "") {
      setText(value, text);
      setText(note, below);
      mark.hidden = tone === "";
      inner.className = tone;
    },
  };
}

function loadingCard() {
  return h("section", { class: "card" }, loading(3));
}
