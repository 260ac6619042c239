// Downloads. Without a token a download is a link, which the browser handles best. A link can't send a
// token; with a token the page fetches the file and passes it to the browser.

import { apiUrl, request } from "./api.js";
import { h } from "./dom.js";
import { hasToken } from "./session.js";
import { describe } from "./states.js";
import { icon } from "./status.js";

/** Return a button that downloads a path of the API. */
export function downloadButton(label, path, filename, kind = "") {
  const content = [icon("download"), h("span", {}, label)];
  if (!hasToken()) return h("a", { class: `button ${kind}`, href: apiUrl(path), download: filename }, content);
  return fetching(h("button", { class: `button ${kind}`, type: "button" }, content), path, {}, filename);
}

/** Return a link within a text that downloads a path of the API. */
export function downloadLink(label, path, parameters, filename) {
  if (!hasToken()) return h("a", { href: apiUrl(path, parameters), download: filename }, label);
  return fetching(h("button", { class: "link", type: "button" }, h("span", {}, label)), path, parameters, filename);
}

function fetching(button, path, parameters, filename) {
  const text = button.querySelector("span");
  const label = text.textContent;
  button.addEventListener("click", async () => {
    button.disabled = true;
    text.textContent = "Downloading …";
    try {
      const response = await request(apiUrl(path, parameters));
      save(await response.blob(), filename);
      text.textContent = label;
    } catch (error) {
      text.textContent = `${label}: ${describe(error)}`;
    } finally {
      button.disabled = false;
    }
  });
  return button;
}

function save(blob, filename) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: filename }).click();
  // The browser has read the content of the URL long before.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
