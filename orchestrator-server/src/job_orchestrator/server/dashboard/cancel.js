// The dialog that asks for confirmation before a job is terminated.

import { terminate } from "./api.js";
import { fill, h } from "./dom.js";
import { describe } from "./states.js";

/** Dialog for one job. `done()` is called when the job was terminated, or had ended before. */
export class CancelDialog {
  constructor(id, done) {
    this.id = id;
    this.done = done;
    this.text = h("p", { id: "cancel-text" });
    this.problem = h("div", { role: "alert" });
    this.keep = h("button", { class: "button", type: "button", on: { click: () => this.element.close() } }, "Keep it");
    this.end = h("button", { class: "button danger filled", type: "button", on: { click: () => this.confirm() } });
    this.element = h(
      "dialog",
      { class: "dialog", "aria-labelledby": "cancel-title", "aria-describedby": "cancel-text" },
      h("h2", { id: "cancel-title" }, `Cancel job ${id}?`),
      this.text,
      this.problem,
      h("div", { class: "dialog-buttons" }, this.keep, this.end),
    );
  }

  /** Ask for confirmation. The browser moves the focus to the dialog, and back when it is closed. */
  open({ status }) {
    fill(
      this.text,
      status === "Queued"
        ? "The job has not started, and will not run."
        : "All processes of the job are terminated. The output so far is kept. This can't be undone.",
    );
    fill(this.problem);
    this.busy(false);
    this.element.showModal();
    this.keep.focus();
  }

  async confirm() {
    this.busy(true);
    fill(this.problem);
    try {
      await terminate(this.id);
    } catch (error) {
      this.busy(false);
      // 409: the job had ended before the request arrived.
      if (error.status !== 409) {
        fill(this.problem, h("p", { class: "problem" }, describe(error)));
        this.end.focus();
        return;
      }
    }
    this.element.close();
    this.done();
  }

  busy(busy) {
    this.end.disabled = busy;
    this.end.textContent = busy ? "Cancelling …" : "Cancel the job";
  }
}
