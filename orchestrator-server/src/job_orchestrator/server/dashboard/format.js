// Numbers, sizes and times as people read them.

const ABSOLUTE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const COUNT = new Intl.NumberFormat(undefined);
const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** The date and time of an ISO text, in the reader's time zone. */
export function absolute(iso) {
  return ABSOLUTE.format(new Date(iso));
}

/** Hours and minutes. */
export function clockTime(iso) {
  return CLOCK.format(new Date(iso));
}

/** "3 minutes ago", from seconds. */
export function relative(seconds) {
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  const days = Math.floor(seconds / 86400);
  return days === 1 ? "1 day ago" : `${days} days ago`;
}

/** A length of time: the two largest units that say something. */
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

/** A length of time of which nobody knows more than the order: "about 4 min". */
export function roughDuration(seconds) {
  if (seconds < 45) return "less than a minute";
  if (seconds < 3600) return `about ${Math.round(seconds / 60)} min`;
  if (seconds < 86400) return `about ${Math.round(seconds / 3600)} h`;
  return `about ${Math.round(seconds / 86400)} d`;
}

/** A size with a decimal unit. */
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

/** A count with separators of thousands. */
export function count(number) {
  return COUNT.format(number);
}

/** "1 job", "2 jobs". */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Per cent without decimals, or a dash. */
export function percent(number) {
  return number === null || number === undefined ? "–" : `${Math.round(number)} %`;
}

/** Host and port of a client's URL; the whole text if it is none. */
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
