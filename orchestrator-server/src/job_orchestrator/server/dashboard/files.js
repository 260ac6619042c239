// The list of files in the results of a job.

import { apiUrl, getJson } from "./api.js";
import { fill, h } from "./dom.js";
import { downloadLink } from "./download.js";
import { count, plural, size } from "./format.js";
import { hasToken } from "./session.js";
import { failure, loading, placeholder } from "./states.js";
import { hasEnded } from "./status.js";

const ROWS_PER_STEP = 100;

/** Card with the list, which grows on request. */
export class Files {
  constructor(id, signal) {
    this.id = id;
    this.signal = signal;
    this.summary = h("span", { class: "card-note" });
    this.content = h("div", { class: "files-place" });
    this.element = h("section", { class: "card" }, h("div", { class: "card-head" }, h("h2", {}, "Results"), this.summary), this.content);
  }

  /** Show the files of a job in its present state, or why there are none. */
  update({ status, has_output: kept }) {
    const key = `${hasEnded(status)} ${kept} ${status === "Cleaned"}`;
    if (this.key === key) return;
    this.key = key;
    if (status === "Cleaned") fill(this.content, placeholder("box", "The files were removed", h("p", {}, "Results are kept for a limited time after the end of a job.")));
    else if (kept) this.load();
    else if (hasEnded(status)) fill(this.content, placeholder("file", "There are no results"));
    else fill(this.content, placeholder("file", "No results yet", h("p", {}, "They are listed here when the job has ended.")));
  }

  async load() {
    fill(this.content, loading(4));
    try {
      const { files, truncated } = await getJson(`jobs/${this.id}/files`, {}, this.signal);
      this.show(files, truncated);
    } catch (error) {
      if (!this.signal.aborted) fill(this.content, failure(error, () => this.load()));
    }
  }

  show(files, truncated) {
    // Files that the client adds are listed after the files of the job.
    const sorted = files.toSorted((a, b) => isOwn(a) - isOwn(b) || a.path.localeCompare(b.path, undefined, { numeric: true }));
    const bytes = files.reduce((all, file) => all + file.size, 0);
    this.summary.textContent = `${truncated ? "More than " : ""}${plural(files.length, "file")}, ${size(bytes)}`;
    const body = h("tbody", {});
    const more = h("button", { class: "button small", type: "button" });
    let shown = 0;
    const grow = () => {
      body.append(...sorted.slice(shown, shown + ROWS_PER_STEP).map((file) => row(this.id, file)));
      shown = Math.min(shown + ROWS_PER_STEP, sorted.length);
      more.hidden = shown === sorted.length;
      more.textContent = `Show more (${count(sorted.length - shown)} left)`;
    };
    more.addEventListener("click", grow);
    grow();
    const head = h("tr", {}, h("th", { scope: "col" }, "File"), h("th", { scope: "col", class: "number" }, "Size"));
    fill(this.content, h("table", { class: "file-table" }, h("thead", {}, head), body), h("div", { class: "more" }, more));
    if (truncated) this.content.append(h("p", { class: "card-empty" }, "The list is incomplete; the ZIP contains all files."));
  }
}

function row(id, file) {
  const slash = file.path.lastIndexOf("/") + 1;
  return h(
    "tr",
    { class: isOwn(file) ? "own" : null },
    h("th", { scope: "row" }, slash > 0 && h("span", { class: "folder" }, file.path.slice(0, slash)), link(id, file.path, file.path.slice(slash))),
    h("td", { class: "number" }, size(file.size)),
  );
}

/** Return a link that shows a file, or saves it where a token is needed, which a link can't send. */
function link(id, path, name) {
  const location = `jobs/${id}/files/${path.split("/").map(encodeURIComponent).join("/")}`;
  if (hasToken()) return downloadLink(name, location, {}, name);
  return h("a", { href: apiUrl(location), target: "_blank", rel: "noopener" }, name);
}

function isOwn({ path }) {
  return path.startsWith(".orchestrator/");
}
