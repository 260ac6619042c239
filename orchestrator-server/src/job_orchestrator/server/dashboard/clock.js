// The server's clock, and texts with relative times that are refreshed every second.

import { duration, relative, absolute } from "./format.js";
import { h, setText } from "./dom.js";

let skewMs = 0;

/** Measure the offset of the server's clock from the Date header of a response (whole seconds). */
export function adjustClock(header) {
  const server = Date.parse(header ?? "");
  if (Number.isNaN(server)) return;
  const difference = server + 500 - Date.now();
  // A smaller difference can't be measured with whole seconds and the delay of the response.
  skewMs = Math.abs(difference) < 1500 ? 0 : difference;
}

/** Return milliseconds since 1970 by the server's clock. */
export function now() {
  return Date.now() + skewMs;
}

/** Return an element with a point in time such as "3 min ago"; its title is the exact time. */
export function when(iso) {
  if (!iso) return "–";
  const element = h("time", { datetime: iso, title: absolute(iso), dataset: { tick: "ago" } });
  refresh(element);
  return element;
}

/** Return an element with the time that has passed since `iso`, which is refreshed. */
export function since(iso, prefix = "") {
  const element = h("time", {
    datetime: iso,
    title: `since ${absolute(iso)}`,
    dataset: { tick: "since", prefix },
  });
  refresh(element);
  return element;
}

function refresh(element) {
  const passed = (now() - Date.parse(element.dateTime)) / 1000;
  const { tick, prefix } = element.dataset;
  setText(element, tick === "ago" ? relative(passed) : prefix + duration(Math.max(0, passed)));
}

/** Start to refresh these texts once a second while the page is visible. */
export function startClock() {
  const tick = () => {
    if (!document.hidden) document.querySelectorAll("time[data-tick]").forEach(refresh);
  };
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", tick);
}
