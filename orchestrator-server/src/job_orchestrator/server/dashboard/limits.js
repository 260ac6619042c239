// Limits and their use: of the user who is signed in, or for administrators those of all users; pauses.

import { getJson, setPause } from "./api.js";
import { fill, h, KeyedList, setText } from "./dom.js";
import { count, plural } from "./format.js";
import { Meter } from "./meter.js";
import { whoami } from "./session.js";
import { describe } from "./states.js";

const LABELS = {
  user_and_service: (name) => `User in ${name}`,
  borrowing: (name) => `User in ${name}, with idle slots`,
  user: () => "User in all services",
  group: (name) => `Group ${name}`,
  service: (name) => `Service ${name}`,
  total: () => "All jobs",
  rate: () => "Started or sent",
};

/** Names of the limits of the reader. */
const OWN_LABELS = {
  ...LABELS,
  user_and_service: (name) => name,
  borrowing: (name) => `${name}, with idle slots`,
  user: () => "All services",
};

/** List of limits with their use. `labels` has a function from the name to a text for each kind. */
export class LimitList {
  constructor(labels = LABELS) {
    const label = ({ kind, name }) => (labels[kind] ?? (() => `${kind} ${name}`))(name);
    this.element = h("ul", { class: "rows limits" });
    this.list = new KeyedList(this.element, ({ kind, name }) => `${kind} ${name}`, (limit) => limitRow(limit, label(limit)));
  }

  update(limits) {
    this.list.show(limits);
    this.element.hidden = limits.length === 0;
  }
}

function limitRow(limit, name) {
  const meter = new Meter(name);
  const note = limit.kind === "rate" ? h("span", { class: "row-note" }, ` ${limit.name}`) : null;
  const element = h("li", { class: "row limit" }, h("span", { class: "limit-name" }, name, note), meter.element);
  const update = ({ used, limit: most, reached, kind }) => {
    const unit = kind === "rate" ? "used" : "active";
    meter.update(used, most, `${count(Math.ceil(used))} of ${count(most)} ${unit}`, reached ? "high" : "");
  };
  return { element, update };
}

/** Card with the limits of the user who is signed in. */
export class OwnLimits {
  constructor() {
    this.limits = new LimitList(OWN_LABELS);
    this.paused = h("p", { class: "card-empty warn", hidden: true }, "An administrator has paused your jobs: none starts until that ends.");
    this.element = h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Your limits")), this.paused, this.limits.element);
  }

  update({ use, paused }) {
    this.limits.update(use);
    this.paused.hidden = !paused;
  }
}

/** Card for administrators: limits of all users together, and the users that are paused. */
export class AllLimits {
  constructor(signal) {
    this.signal = signal;
    this.limits = new LimitList();
    this.users = h("ul", { class: "rows" });
    this.list = new KeyedList(this.users, (user) => user, (user) => this.userRow(user));
    this.summary = h("span", { class: "card-note" });
    this.problem = h("p", { class: "row-problem", role: "alert", hidden: true });
    this.element = h(
      "section",
      { class: "card" },
      h("div", { class: "card-head" }, h("h2", {}, "Limits and pauses"), this.summary),
      this.limits.element,
      this.users,
      this.form(),
    );
  }

  form() {
    const user = h("input", { id: "pause-user", inputmode: "numeric", pattern: "-?[0-9]+", required: true, title: "A user's number", autocomplete: "off" });
    const submit = (event) => {
      event.preventDefault();
      this.set(true, Number(user.value), () => {
        user.value = "";
      });
    };
    return h(
      "form",
      { class: "pause-form", "aria-label": "Pause a user", on: { submit } },
      h("label", { for: "pause-user" }, "Start no more jobs of user"),
      user,
      h("button", { class: "button small", type: "submit" }, "Pause"),
      this.problem,
    );
  }

  userRow(user) {
    const resume = () => this.set(false, user);
    const button = h("button", { class: "button small", type: "button", on: { click: resume } }, "Resume", h("span", { class: "visually-hidden" }, ` user ${user}`));
    const element = h("li", { class: "row row-head" }, h("span", {}, `User ${user} is paused`), button);
    return { element, update: () => {} };
  }

  async set(paused, user, done = () => {}) {
    try {
      this.show(await setPause(paused, { user_id: user }));
      this.problem.hidden = true;
      done();
    } catch (error) {
      setText(this.problem, describe(error));
      this.problem.hidden = false;
    }
  }

  async load() {
    this.show(await getJson("pauses", {}, this.signal));
  }

  show({ users }) {
    this.list.show(users);
    this.users.hidden = users.length === 0;
    setText(this.summary, users.length > 0 ? `${plural(users.length, "user")} paused` : "");
  }

  update(use) {
    this.limits.update(use);
  }
}

/** Button with which an administrator pauses and resumes a service; an empty list for users. */
export function pauseButton(service, failed) {
  if (!whoami.admin) return { element: [], update: () => {} };
  let paused = false;
  const button = h("button", { class: "button small", type: "button" });
  const show = () => fill(button, paused ? "Resume" : "Pause", h("span", { class: "visually-hidden" }, ` ${service}`));
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const { services } = await setPause(!paused, { service });
      paused = services.includes(service);
      failed("");
      show();
    } catch (error) {
      failed(describe(error));
    }
    button.disabled = false;
  });
  return {
    element: button,
    update: (now) => {
      if (paused !== now || !button.firstChild) {
        paused = now;
        show();
      }
    },
  };
}
