// Runs before the page is painted, so that a remembered theme does not flash in the other one.
// No module: modules run after the page is read.
(() => {
  const KEY = "jo-theme";
  let remembered = null;
  try {
    remembered = localStorage.getItem(KEY);
  } catch {
    // Storage is switched off: the theme of the system it is.
  }
  if (remembered === "light" || remembered === "dark") {
    document.documentElement.dataset.theme = remembered;
  }
})();
