// Applies the stored theme before the page is painted, so that the other theme does not flash.
// Not a module, because modules run after the page has been parsed.
(() => {
  const KEY = "jo-theme";
  let stored = null;
  try {
    stored = localStorage.getItem(KEY);
  } catch {
    // Storage is disabled: the theme of the system is used.
  }
  if (stored === "light" || stored === "dark") {
    document.documentElement.dataset.theme = stored;
  }
})();
