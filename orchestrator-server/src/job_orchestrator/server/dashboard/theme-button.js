// The button that changes between light and dark; theme.js applies the stored theme.

import { fill } from "./dom.js";
import { icon } from "./status.js";

const KEY = "jo-theme";
const systemDark = matchMedia("(prefers-color-scheme: dark)");

/** Make `button` change the theme. */
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

/** Set a theme. The theme of the system is not stored, so that later changes of the system apply. */
function set(theme) {
  const same = (theme === "dark") === systemDark.matches;
  if (same) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (same) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // Storage is disabled: the choice applies until the page is closed.
  }
}
