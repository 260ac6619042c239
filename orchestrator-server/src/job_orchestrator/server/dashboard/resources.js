// Services and clients: their limits, use and problems.

import { fill, h, KeyedList, setText } from "./dom.js";
import { count, duration, host, percent, plural } from "./format.js";
import { pauseButton } from "./limits.js";
import { Meter } from "./meter.js";
import { clientBadge, serviceBadge } from "./status.js";

/** Use of memory, in per cent, that is highlighted. A busy CPU is normal; full memory makes jobs fail. */
const HIGH_MEMORY = 90;

/** Orders of queued jobs; the usual one, by fair shares, is not mentioned. */
const ORDERS = { fifo: "in the order of arrival", priority: "by priority" };

/** Card with a list. */
class Card {
  constructor(title, key, create, empty) {
    this.body = h("ul", { class: "rows" });
    this.list = new KeyedList(this.body, key, create);
    this.summary = h("span", { class: "card-note" });
    this.empty = h("p", { class: "card-empty", hidden: true }, empty);
    this.element = h(
      "section",
      { class: "card" },
      h("div", { class: "card-head" }, h("h2", {}, title), this.summary),
      this.body,
      this.empty,
    );
  }

  show(items, summary) {
    this.list.show(items);
    this.body.hidden = items.length === 0;
    this.empty.hidden = items.length > 0;
    setText(this.summary, summary);
  }
}

/** Card with all services. */
export class Services extends Card {
  constructor(choose) {
    super("Services", ({ name }) => name, (service) => serviceRow(service, choose), "No service is configured.");
  }

  update(services) {
    this.show(services, services.length > 1 ? plural(services.length, "service") : "");
  }
}

function serviceRow({ name }, choose) {
  const state = h("span", {});
  const meter = new Meter(`Active jobs of ${name}`);
  const queue = h("span", { class: "queue" });
  const limits = h("p", { class: "row-note" });
  const problem = h("p", { class: "row-problem" });
  let failure = "";
  const pause = pauseButton(name, (text) => {
    failure = text;
    showProblem("");
  });
  const showProblem = (text) => {
    setText(problem, failure || text);
    problem.hidden = !(failure || text);
  };
  const link = h("a", { class: "row-title", href: `#/?service=${encodeURIComponent(name)}`, on: { click: choose } }, name);
  const element = h(
    "li",
    { class: "row service" },
    h("div", { class: "row-head" }, link, h("span", { class: "row-tools" }, state, pause.element)),
    h("div", { class: "row-use" }, meter.element),
    queue,
    limits,
    problem,
  );
  const update = (service) => {
    showBadge(state, serviceBadge, service.paused ? "paused" : service.state);
    pause.update(service.paused);
    meter.update(service.running, service.max_runs, `${count(service.running)} of ${count(service.max_runs)} running`);
    setText(queue, service.waiting > 0 ? `${count(service.waiting)} waiting` : "none waiting");
    queue.classList.toggle("some", service.waiting > 0);
    // Clients are shown to administrators only.
    const most = service.runs_per_user_burst ?? service.runs_per_user;
    const parts = [
      service.clients.length > 0 && plural(service.clients.length, "client"),
      `${count(service.runs_per_user)} per user${most > service.runs_per_user ? `, up to ${count(most)} while slots are idle` : ""}`,
      ORDERS[service.policy],
      service.time_limit_s && `at most ${duration(service.time_limit_s)} each`,
    ];
    setText(limits, parts.filter(Boolean).join(" · "));
    showProblem(service.problem ?? "");
  };
  return { element, update };
}

/** Card with all clients. */
export class Clients extends Card {
  constructor() {
    super("Clients", ({ url }) => url, clientRow, "No client is configured.");
  }

  update(clients) {
    const reached = clients.filter(({ state }) => state !== "unreachable");
    const slots = reached.reduce((all, { slots: some }) => all + (some ?? 0), 0);
    const running = reached.reduce((all, client) => all + (client.running ?? 0), 0);
    this.show(clients, slots > 0 ? `${count(running)} of ${plural(slots, "slot")} in use` : "");
  }
}

function clientRow({ url }) {
  const state = h("span", {});
  const slots = new Meter(`Slots of ${host(url)}`);
  const cpu = new Meter(`CPU of ${host(url)}`);
  const memory = new Meter(`Memory of ${host(url)}`);
  const note = h("p", { class: "row-note" });
  const problem = h("p", { class: "row-problem" });
  const loads = h("dl", { class: "loads" }, labelled("Slots", slots), labelled("CPU", cpu), labelled("Memory", memory));
  const element = h(
    "li",
    { class: "row client" },
    h("div", { class: "row-head" }, h("span", { class: "row-title", title: url }, host(url)), state),
    note,
    loads,
    problem,
  );
  const update = (client) => {
    showBadge(state, clientBadge, client.state);
    // The last report of an unreachable client is outdated.
    const known = client.slots !== null && client.state !== "unreachable";
    loads.hidden = !known;
    const waiting = client.waiting > 0 ? ` +${count(client.waiting)}` : "";
    slots.update(client.running, client.slots, known ? `${count(client.running)}/${count(client.slots)}${waiting}` : "–");
    slots.element.title = client.waiting > 0 ? `${count(client.waiting)} more are waiting at the client` : "";
    cpu.update(client.cpu, 100, percent(client.cpu));
    memory.update(client.memory, 100, percent(client.memory), client.memory >= HIGH_MEMORY ? "high" : "");
    const parts = [client.services.join(", "), client.version, client.draining && (client.problem ? "takes no new jobs" : "stopping, takes no new jobs")];
    setText(note, parts.filter(Boolean).join(" · "));
    const problems = [client.problem, ...(client.warnings ?? [])].filter(Boolean);
    setText(problem, problems.join(" · "));
    problem.hidden = problems.length === 0;
  };
  return { element, update };
}

function labelled(label, meter) {
  return h("div", {}, h("dt", {}, label), h("dd", {}, meter.element));
}

/** Replace a badge if the state has changed. */
function showBadge(element, create, state) {
  if (element.dataset.state === state) return;
  element.dataset.state = state;
  fill(element, create(state));
}
