// Why a queued job waits, with the figures of the scheduler. For administrators.

import { getJson } from "./api.js";
import { fill, h, KeyedList, setText } from "./dom.js";
import { count, host, plural } from "./format.js";
import { LimitList } from "./limits.js";

/** Card about one job; it is hidden while the job does not wait. */
export class Explanation {
  constructor(id, signal) {
    this.id = id;
    this.signal = signal;
    this.place = h("span", { class: "card-note" });
    this.limits = new LimitList();
    this.clients = h("ul", { class: "rows" });
    this.list = new KeyedList(this.clients, ({ url }) => url, clientRow);
    this.element = h(
      "section",
      { class: "card", hidden: true },
      h("div", { class: "card-head" }, h("h2", {}, "Why it waits"), this.place),
      this.limits.element,
      this.clients,
    );
  }

  async update({ status }) {
    if (status !== "Queued") {
      this.element.hidden = true;
      return;
    }
    try {
      this.show(await getJson(`jobs/${this.id}/explanation`, {}, this.signal));
    } catch {
      // The next change of the job, or the next few seconds, bring another attempt.
    }
  }

  show({ status, place, limits, clients, users, waiting_users: waiting }) {
    this.element.hidden = status !== "Queued";
    const line = users.reduce((all, { queued }) => all + queued, 0);
    setText(this.place, place === null ? "" : `place ${count(place)} of ${count(line)}, ${plural(waiting, "user")}`);
    this.limits.update(limits);
    this.list.show(clients);
  }
}

function clientRow({ url }) {
  const note = h("p", { class: "row-note" });
  const free = h("span", { class: "card-note" });
  const element = h("li", { class: "row" }, h("div", { class: "row-head" }, h("span", { class: "row-title", title: url }, host(url)), free), note);
  const update = ({ obstacle, free: slots, slots: all, kept_for: kept }) => {
    setText(free, all === null ? "" : `${count(slots)} of ${plural(all, "slot")} free`);
    const parts = [obstacle || "It can take the job", kept !== null && `kept for job ${kept}`];
    fill(note, parts.filter(Boolean).join(" · "));
  };
  return { element, update };
}
