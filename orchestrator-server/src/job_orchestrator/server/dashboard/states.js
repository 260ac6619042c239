// Placeholders for content that is loading, empty or could not be loaded.

import { ApiError } from "./api.js";
import { h } from "./dom.js";
import { icon } from "./status.js";

/** Return a skeleton: grey lines for content that is loading. */
export function loading(lines = 3) {
  return h(
    "div",
    { class: "skeleton", "aria-busy": "true" },
    h("span", { class: "visually-hidden" }, "Loading"),
    Array.from({ length: lines }, () => h("div", { class: "skeleton-line" })),
  );
}

/** Return a message for an empty area. */
export function placeholder(name, title, ...content) {
  return message("p", {}, name, title, content);
}

/** Return an error message with a button to try again. */
export function failure(error, retry) {
  return message("p", { role: "alert" }, "triangle", "This could not be loaded", [
    h("p", {}, describe(error)),
    tryAgain(retry),
  ]);
}

/** Return a page with an error message and a button to try again. */
export function failurePage(error, retry) {
  return page("triangle", "This could not be loaded", [h("p", {}, describe(error)), tryAgain(retry)]);
}

/** Return a page about something that does not exist. */
export function notFound(title) {
  return page("question", title, [
    h("p", {}, "The address may be wrong, or belong to another server."),
    h("a", { class: "button", href: "#/" }, "Go to the overview"),
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

/** Return an error as a text for the reader. */
export function describe(error) {
  return error instanceof ApiError ? error.message : `Unexpected error: ${error.message ?? error}`;
}

/** Return a block of commands with a button that copies them. */
export function commands(text, label) {
  const button = h("button", { class: "button small", type: "button" }, icon("copy"), "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.lastChild.textContent = "Copied";
    } catch {
      // The clipboard requires HTTPS. Without it, select the text so that Ctrl-C copies it.
      getSelection().selectAllChildren(code);
    }
  });
  const code = h("pre", { class: "commands", tabindex: 0, role: "region", "aria-label": label }, text);
  return h("div", { class: "commands-frame" }, code, button);
}
