// The button that changes between light and dark; theme.js applies what it remembers.

import { fill } from "./dom.js";
import { icon } from "./status.js";

const KEY = "jo-theme";
const systemDark = matchMedia("(prefers-color-scheme: dark)");

/** Make `button` the one. */
export function prepareTheme(button) {
  const show = () => {
    const other = isDark() ? "light" : "dark";
    fill(button, icon(isDark() ? "sun" : "moon"));
    button.setAttribute("aria-label", `Change to ${other} colours`);
    button.title = `Change to ${other} colours`;
  };
  button.addEventListener("click", () => {
    set(isDark() ? "light" : "dark");
    show();
  });
  systemDark.addEventListener("change", show);
  show();
}

function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : systemDark.matches;
}

/** Remember a theme only while it differs from that of the system, so that a change there is followed. */
function set(theme) {
  const same = (theme === "dark") === systemDark.matches;
  if (same) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (same) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // Storage is switched off: the choice holds for this page.
  }
}
