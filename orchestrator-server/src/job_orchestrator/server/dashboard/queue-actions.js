// Actions on a queued job: hold, release, and the dialog that changes its priority.

import { changeJob } from "./api.js";
import { fill, h } from "./dom.js";
import { icon } from "./status.js";
import { describe } from "./states.js";

const MAX_PRIORITY = 100;

/** Return the button that holds or releases a job. `changed(job)` and `failed(text)` are called after it. */
export function holdButton({ id, held }, changed, failed) {
  const button = h("button", { class: "button", type: "button" }, icon(held ? "send" : "pause"), held ? "Release" : "Hold");
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      changed(await changeJob(id, { held: !held }));
    } catch (error) {
      button.disabled = false;
      failed(describe(error));
    }
  });
  return button;
}

/** Dialog that changes the priority of one job. `changed(job)` is called after that. */
export class PriorityDialog {
  constructor(id, changed) {
    this.id = id;
    this.changed = changed;
    this.input = h("input", { id: "priority-value", type: "number", min: -MAX_PRIORITY, max: MAX_PRIORITY, step: 1, required: true });
    this.problem = h("div", { role: "alert" });
    this.save = h("button", { class: "button primary", type: "submit" }, "Change");
    const close = () => this.element.close();
    this.element = h(
      "dialog",
      { class: "dialog", "aria-labelledby": "priority-title" },
      h("h2", { id: "priority-title" }, `Priority of job ${id}`),
      h(
        "form",
        { on: { submit: (event) => this.submit(event) } },
        h("p", {}, "Jobs with a higher priority start before your others. It is from -100 to 100."),
        h("div", { class: "field dialog-field" }, h("label", { for: "priority-value" }, "Priority"), this.input),
        this.problem,
        h("div", { class: "dialog-buttons" }, h("button", { class: "button", type: "button", on: { click: close } }, "Leave it"), this.save),
      ),
    );
  }

  open({ priority }) {
    this.input.value = String(priority);
    fill(this.problem);
    this.element.showModal();
    this.input.select();
  }

  async submit(event) {
    event.preventDefault();
    this.save.disabled = true;
    fill(this.problem);
    try {
      this.changed(await changeJob(this.id, { priority: Number(this.input.value) }));
      this.element.close();
    } catch (error) {
      fill(this.problem, h("p", { class: "problem" }, describe(error)));
    }
    this.save.disabled = false;
  }
}
