// Numbers, sizes and times in a form for people.

const ABSOLUTE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const COUNT = new Intl.NumberFormat(undefined);
const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** Format an ISO time as date and time, in the reader's time zone. */
export function absolute(iso) {
  return ABSOLUTE.format(new Date(iso));
}

/** Format an ISO time as hours and minutes. */
export function clockTime(iso) {
  return CLOCK.format(new Date(iso));
}

/** Format an age in seconds, as "3 min ago". */
export function relative(seconds) {
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  const days = Math.floor(seconds / 86400);
  return days === 1 ? "1 day ago" : `${days} days ago`;
}

/** Format a duration in seconds, with its two largest units. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** Format an estimated duration in seconds, as "about 4 min". */
export function roughDuration(seconds) {
  if (seconds < 45) return "less than a minute";
  if (seconds < 3600) return `about ${Math.round(seconds / 60)} min`;
  if (seconds < 86400) return `about ${Math.round(seconds / 3600)} h`;
  return `about ${Math.round(seconds / 86400)} d`;
}

/** Format a size in bytes with a decimal unit. */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  let unit = 0;
  let value = bytes;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 99.5 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** Format a count with thousands separators. */
export function count(number) {
  return COUNT.format(number);
}

/** Format a count with its noun: "1 job", "2 jobs". */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Format a percentage without decimals, or a dash if it is not known. */
export function percent(number) {
  return number === null || number === undefined ? "–" : `${Math.round(number)} %`;
}

/** Return host and port of a client's URL, or the text itself if it is not a URL. */
export function host(url) {
  try {
    return new URL(url).host;
  } catch {
    return url;
  }
}

function two(number) {
  return String(number).padStart(2, "0");
}
