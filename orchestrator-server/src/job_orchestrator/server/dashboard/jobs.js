// The list of jobs: filters, pages, and rows that are updated by events.

import { getJson } from "./api.js";
import { fill, h, KeyedList } from "./dom.js";
import { jobRow, jobTable } from "./job-row.js";
import { whoami } from "./session.js";
import { failure, loading, placeholder } from "./states.js";
import { FAILED, RUNNING, WAITING } from "./status.js";

const PAGE = 25;
/** Maximum length of the first page, which new jobs extend. */
const MAX_ROWS = 4 * PAGE;
const RELOAD_MS = 3000;
const TYPING_MS = 350;

/** Choices of the buttons above the list. */
const STATES = [
  { key: "", label: "All", statuses: [] },
  { key: "active", label: "Running", statuses: RUNNING },
  { key: "waiting", label: "Waiting", statuses: WAITING },
  { key: "completed", label: "Completed", statuses: ["Completed"] },
  { key: "failed", label: "Failed", statuses: FAILED },
  { key: "cancelled", label: "Cancelled", statuses: ["Killed"] },
];
const FILTERS = ["state", "service", "user", "tag", "array"];

/** Cursor of the previous page by the cursor of the page that "Older" shows, for "Newer". */
const previousCursor = new Map();

/**
 * Card with the list. `go(filters)` changes the address, which then calls `apply`; `first()` returns the
 * content if there are no jobs.
 */
export class Jobs {
  constructor({ parameters, go, first, signal }) {
    this.go = go;
    this.first = first;
    this.signal = signal;
    this.jobs = [];
    this.body = h("tbody", {});
    this.list = new KeyedList(this.body, ({ id }) => id, jobRow);
    this.table = jobTable(this.body);
    this.content = h("div", { class: "jobs-place" }, loading(6));
    this.pages = h("nav", { class: "pages", "aria-label": "Pages of jobs" });
    this.read(parameters);
    this.element = h(
      "section",
      { class: "card jobs", id: "jobs" },
      h("div", { class: "card-head" }, h("h2", {}, "Jobs"), this.stateButtons()),
      this.filterForm(),
      this.content,
      this.pages,
    );
    this.showFilters();
  }

  read(parameters) {
    this.cursor = parameters.get("after") ?? "";
    this.filters = Object.fromEntries(FILTERS.map((name) => [name, parameters.get(name) ?? ""]));
  }

  /** Show the list of another address. */
  apply(parameters) {
    this.read(parameters);
    this.showFilters();
    this.content.classList.add("old");
    // The links belong to the previous list.
    fill(this.pages);
    this.links = null;
    return this.load();
  }

  stateButtons() {
    this.buttons = STATES.map(({ key, label }) =>
      h("button", { type: "button", dataset: { key }, on: { click: () => this.choose("state", key) } }, label),
    );
    return h("div", { class: "segments", role: "group", "aria-label": "State of the jobs" }, this.buttons);
  }

  filterForm() {
    this.service = h("select", { id: "filter-service", on: { change: () => this.choose("service", this.service.value) } });
    this.user = whoami.admin && this.textFilter("user", { inputmode: "numeric", pattern: "-?[0-9]+", title: "A user's number" });
    this.tag = this.textFilter("tag", { maxlength: 100 });
    this.array = this.textFilter("array", { inputmode: "numeric", pattern: "[0-9]+", title: "The id of an array" });
    this.clear = h("button", { class: "button small", type: "button", on: { click: () => this.go({}) } }, "Clear filters");
    this.serviceNames = [];
    return h(
      "form",
      { class: "filters", role: "search", "aria-label": "Filter jobs", on: { submit: (event) => event.preventDefault() } },
      field("filter-service", "Service", this.service),
      this.user && field("filter-user", "User", this.user),
      field("filter-tag", "Tag", this.tag),
      field("filter-array", "Array", this.array),
      this.clear,
    );
  }

  showFilters() {
    const { state, user, tag, array } = this.filters;
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(button.dataset.key === state));
    if (this.user && document.activeElement !== this.user) this.user.value = user;
    if (document.activeElement !== this.tag) this.tag.value = tag;
    if (document.activeElement !== this.array) this.array.value = array;
    this.clear.hidden = !this.filtered();
    this.offerServices(this.serviceNames);
  }

  textFilter(name, attributes) {
    let timer = null;
    const input = h("input", { id: `filter-${name}`, type: "search", autocomplete: "off", ...attributes });
    const apply = () => {
      clearTimeout(timer);
      const text = input.value.trim();
      if (input.checkValidity() && text !== this.filters[name]) this.choose(name, text);
    };
    input.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(apply, TYPING_MS);
    });
    input.addEventListener("change", apply);
    return input;
  }

  /** Offer services in the filter. The chosen service remains, also if it is not one of them. */
  offerServices(names) {
    this.serviceNames = names;
    const chosen = this.filters.service;
    const all = [...new Set([...names, ...(chosen ? [chosen] : [])])];
    fill(this.service, h("option", { value: "" }, "All"), all.map((name) => h("option", { value: name }, name)));
    this.service.value = chosen;
  }

  choose(name, value) {
    this.go({ ...this.filters, [name]: value });
  }

  filtered() {
    return FILTERS.some((name) => this.filters[name] !== "");
  }

  statuses() {
    return STATES.find(({ key }) => key === this.filters.state)?.statuses ?? [];
  }

  async load() {
    this.requests = (this.requests ?? 0) + 1;
    const number = this.requests;
    try {
      const { service, tag, user, array } = this.filters;
      const answer = await getJson(
        "jobs",
        { service, tag, array, user_id: whoami.admin ? user : whoami.user_id, status: this.statuses().join(","), limit: PAGE, after: this.cursor },
        this.signal,
      );
      // A later request has been sent since then.
      if (number !== this.requests) return;
      this.jobs = answer.jobs;
      this.next = answer.next;
      this.content.classList.remove("old");
      this.show();
    } catch (error) {
      if (this.signal.aborted || number !== this.requests) return;
      this.content.classList.remove("old");
      fill(this.content, failure(error, () => this.load()));
    }
  }

  /** Update the list with changed jobs, a map by id. */
  merge(changed) {
    if (this.next === undefined) return;
    const shown = this.jobs.map((job) => changed.get(job.id) ?? job);
    const known = new Set(shown.map(({ id }) => id));
    const newest = this.cursor === "" ? [...changed.values()].filter(({ id }) => !known.has(id)) : [];
    const jobs = [...newest, ...shown].filter((job) => this.matches(job)).sort((a, b) => b.id - a.id);
    const last = this.jobs.length > 0 ? this.jobs[this.jobs.length - 1].id : 0;
    // Jobs that are older than this page belong to the next page.
    this.jobs = this.next === null ? jobs : jobs.filter(({ id }) => id >= last);
    const tooFew = this.next !== null && this.jobs.length < PAGE / 2;
    if (this.jobs.length > MAX_ROWS || tooFew) this.loadSoon();
    this.jobs.length = Math.min(this.jobs.length, MAX_ROWS);
    this.show();
  }

  /** Load the page again after many changes, at most once in `RELOAD_MS`. */
  loadSoon() {
    this.reload ??= setTimeout(() => {
      this.reload = undefined;
      if (!this.signal.aborted) this.load();
    }, RELOAD_MS);
  }

  matches({ service, status, tag, user_id: user, array_id: array }) {
    const statuses = this.statuses();
    const { filters } = this;
    return (
      (statuses.length === 0 || statuses.includes(status)) &&
      (filters.service === "" || filters.service.toLowerCase() === service) &&
      (filters.user === "" || filters.user === String(user)) &&
      (filters.tag === "" || filters.tag === tag) &&
      (filters.array === "" || filters.array === String(array))
    );
  }

  show() {
    if (this.jobs.length > 0) {
      this.list.show(this.jobs);
      if (this.table.parentNode !== this.content) fill(this.content, this.table);
    } else fill(this.content, this.nothing());
    this.showPages();
  }

  nothing() {
    if (this.cursor !== "") return placeholder("box", "No older jobs");
    if (!this.filtered()) return this.first();
    return placeholder(
      "question",
      "No job matches",
      h("p", {}, "New jobs that match appear here automatically."),
      h("button", { class: "button", type: "button", on: { click: () => this.go({}) } }, "Clear filters"),
    );
  }

  showPages() {
    const { next } = this;
    const links = JSON.stringify([this.filters, this.cursor, next]);
    if (this.links === links) return;
    this.links = links;
    const page = (label, parameters, name) => h("a", { class: "button small", rel: name, href: address(parameters) }, label);
    if (next) previousCursor.set(next, this.cursor);
    fill(
      this.pages,
      this.cursor && page("Newest", this.filters, "first"),
      this.cursor && previousCursor.get(this.cursor) && page("Newer", { ...this.filters, after: previousCursor.get(this.cursor) }, "prev"),
      next && page("Older", { ...this.filters, after: next }, "next"),
    );
    this.pages.hidden = this.pages.childElementCount === 0;
  }
}

/** Return the address of a list. */
export function address(parameters) {
  const set = Object.entries(parameters).filter(([, value]) => value);
  return set.length > 0 ? `#/?${new URLSearchParams(set)}` : "#/";
}

function field(id, label, input) {
  return h("div", { class: "field" }, h("label", { for: id }, label), input);
}
