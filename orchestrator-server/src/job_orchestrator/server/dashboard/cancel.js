// The dialog that asks before a job is ended.

import { terminate } from "./api.js";
import { fill, h } from "./dom.js";
import { describe } from "./states.js";

/** `done()` is called when the job has ended, by this or by itself. */
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

  /** Ask. The dialog takes the focus and gives it back (the browser does both). */
  open({ status }) {
    fill(
      this.text,
      status === "Queued"
        ? "It has not begun, and never will."
        : "All its processes are ended. What it has written so far is kept. This can't be undone.",
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
      // It had ended by itself a moment before.
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
    this.end.textContent = busy ? "Ending …" : "Cancel the job";
  }
}
