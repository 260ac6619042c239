// Time as the server has it, and texts that go on as it passes.

import { duration, relative, absolute } from "./format.js";
import { h, setText } from "./dom.js";

let skewMs = 0;

/** Learn the server's clock from the Date header of an answer (whole seconds). */
export function learnClock(header) {
  const server = Date.parse(header ?? "");
  if (Number.isNaN(server)) return;
  const difference = server + 500 - Date.now();
  // Within a second both agree, as far as can be told.
  skewMs = Math.abs(difference) < 1500 ? 0 : difference;
}

/** Milliseconds since 1970, by the server's clock. */
export function now() {
  return Date.now() + skewMs;
}

/** A point in time, as "3 minutes ago"; the exact one is its title. */
export function when(iso) {
  if (!iso) return "–";
  const element = h("time", { datetime: iso, title: absolute(iso), dataset: { tick: "ago" } });
  refresh(element);
  return element;
}

/** The time that has passed since `iso`, which goes on. */
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

/** Begin to refresh all such texts once a second, but not while nobody looks. */
export function startClock() {
  const tick = () => {
    if (!document.hidden) document.querySelectorAll("time[data-tick]").forEach(refresh);
  };
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", tick);
}
