// Server-sent events by fetch, because an EventSource can't send the Authorization header. One
// feed is one connection: it reconnects by itself, goes on after the last event that it has seen,
// and lets go while nobody looks at the page (a browser has few connections for each server).

import { ApiError, request } from "./api.js";

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15_000;
/** The server sends at least a comment every 15 s. */
const SILENCE_MS = 40_000;
const HIDDEN_MS = 20_000;
/** After a longer absence everything is read anew instead of all that has happened. */
const RESUMABLE_MS = 120_000;
const MAX_EVENT_CHARS = 8_000_000;

/**
 * Handlers: `event(kind, data)` with parsed JSON; `opened(resumed)` when connected, false when what
 * happened before is not told; `state(state, detail)`: "connecting", "live", "lost" (detail: when it
 * is tried again, milliseconds since 1970), "paused", "ended"; `refused(error)` for an answer that a
 * repetition would not change. `endless` is whether the end of the stream is a fault.
 */
export class Feed {
  constructor(url, { endless, event, opened, state, refused }) {
    this.url = url;
    this.endless = endless;
    this.handlers = { event, opened, state, refused };
    this.lastId = null;
    this.wake = null;
    this.stopped = new AbortController();
    this.hiddenTimer = null;
    this.onVisibility = () => this.visibilityChanged();
    this.onOnline = () => this.tryNow();
    document.addEventListener("visibilitychange", this.onVisibility);
    window.addEventListener("online", this.onOnline);
    this.run();
  }

  /** Close it for good. */
  close() {
    this.stopped.abort();
    this.connection?.abort();
    this.tryNow();
    clearTimeout(this.hiddenTimer);
    document.removeEventListener("visibilitychange", this.onVisibility);
    window.removeEventListener("online", this.onOnline);
  }

  /** Don't wait for the next attempt. */
  tryNow() {
    this.wake?.();
  }

  async run() {
    let waitMs = FIRST_WAIT_MS;
    while (!this.stopped.signal.aborted) {
      const begun = Date.now();
      const outcome = await this.connect();
      if (this.stopped.signal.aborted || outcome === "refused") return;
      if (outcome === "ended") {
        this.handlers.state("ended");
        return;
      }
      if (outcome === "paused") {
        await this.visible();
        continue;
      }
      // Half of the wait is chance, so that a restarted server does not meet all at once.
      if (Date.now() - begun > LONGEST_WAIT_MS) waitMs = FIRST_WAIT_MS;
      const delay = waitMs * (0.5 + Math.random() / 2);
      waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
      this.handlers.state("lost", Date.now() + delay);
      await this.pause(delay);
    }
  }

  async connect() {
    this.connection = new AbortController();
    const { signal } = this.connection;
    const headers = { Accept: "text/event-stream" };
    const resumed = this.lastId !== null;
    if (resumed) headers["Last-Event-ID"] = this.lastId;
    // What the end of the connection before cut off is told again.
    this.partial = null;
    this.handlers.state("connecting");
    this.watch();
    try {
      const response = await request(this.url, { signal, headers });
      this.handlers.state("live");
      this.handlers.opened(resumed);
      // 204, without a body: the job has ended, and there is nothing new to tell.
      if (response.body !== null) await this.read(response.body.getReader());
      return this.endless ? "lost" : "ended";
    } catch (error) {
      if (signal.reason === "paused") return "paused";
      if (error instanceof ApiError && error.status >= 400 && error.status < 500) {
        this.handlers.refused(error);
        return "refused";
      }
      return "lost";
    } finally {
      clearTimeout(this.watchdog);
      this.connection.abort();
    }
  }

  async read(reader) {
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.watch();
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop();
      if (rest.length > MAX_EVENT_CHARS) throw new Error("event too large");
      for (const line of lines) this.takeLine(line.replace(/\r$/, ""));
    }
  }

  takeLine(line) {
    this.partial ??= { kind: "message", data: [] };
    if (line === "") {
      const { kind, data, id } = this.partial;
      this.partial = null;
      if (id !== undefined) this.lastId = id;
      if (data.length > 0) this.handlers.event(kind, JSON.parse(data.join("\n")));
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.partial.kind = value;
    else if (field === "data") this.partial.data.push(value);
    else if (field === "id") this.partial.id = value;
  }

  /** Give a connection up that says nothing, as a vanished server does. */
  watch() {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.connection.abort("silent"), SILENCE_MS);
  }

  visibilityChanged() {
    clearTimeout(this.hiddenTimer);
    if (document.hidden) {
      this.hiddenTimer = setTimeout(() => this.connection?.abort("paused"), HIDDEN_MS);
    } else {
      this.tryNow();
    }
  }

  async visible() {
    const since = Date.now();
    this.handlers.state("paused");
    while (document.hidden && !this.stopped.signal.aborted) await this.pause(60_000);
    if (Date.now() - since > RESUMABLE_MS) this.lastId = null;
  }

  pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
