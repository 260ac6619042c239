// What stands in the place of content: still loading, nothing there, an error.

import { ApiError } from "./api.js";
import { h } from "./dom.js";
import { icon } from "./status.js";

/** Grey lines in the place of what is being loaded. */
export function loading(lines = 3) {
  return h(
    "div",
    { class: "skeleton", "aria-busy": "true" },
    h("span", { class: "visually-hidden" }, "Loading"),
    Array.from({ length: lines }, () => h("div", { class: "skeleton-line" })),
  );
}

/** A message in the middle of an empty place. */
export function placeholder(name, title, ...content) {
  return message("p", {}, name, title, content);
}

/** What went wrong, and a way to try again. */
export function failure(error, retry) {
  return message("p", { role: "alert" }, "triangle", "This could not be loaded", [
    h("p", {}, describe(error)),
    tryAgain(retry),
  ]);
}

/** A whole page that says what went wrong. */
export function failurePage(error, retry) {
  return page("triangle", "This could not be loaded", [h("p", {}, describe(error)), tryAgain(retry)]);
}

/** A whole page that says what isn't there. */
export function notFound(title) {
  return page("question", title, [
    h("p", {}, "It may be on another server, or the address has a mistake."),
    h("a", { class: "button", href: "#/" }, "To the overview"),
  ]);
}

function page(name, title, content) {
  return h("section", { class: "card" }, message("h1", {}, name, title, content));
}

function message(heading, properties, name, title, content) {
  return h(
    "div",
    { class: "placeholder", ...properties },
    h("div", { class: "placeholder-icon" }, icon(name)),
    h(heading, { class: "placeholder-title", tabindex: heading === "h1" ? -1 : null }, title),
    content,
  );
}

function tryAgain(retry) {
  return h("button", { class: "button", type: "button", on: { click: retry } }, "Try again");
}

/** An error in words for the reader. */
export function describe(error) {
  return error instanceof ApiError ? error.message : `Unexpected: ${error.message ?? error}`;
}

/** Commands to copy. */
export function commands(text, label) {
  const button = h("button", { class: "button small", type: "button" }, icon("copy"), "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.lastChild.textContent = "Copied";
    } catch {
      // Not allowed without HTTPS: select it instead, so that Ctrl-C works.
      getSelection().selectAllChildren(code);
    }
  });
  const code = h("pre", { class: "commands", tabindex: 0, role: "region", "aria-label": label }, text);
  return h("div", { class: "commands-frame" }, code, button);
}
