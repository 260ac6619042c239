// Server-sent events by fetch, because EventSource can't send the Authorization header. A feed is one
// connection. It reconnects automatically, resumes after the last event that it received, and
// disconnects while the page is hidden, because a browser opens few connections to each server.

import { ApiError, request } from "./api.js";

const MIN_DELAY_MS = 1000;
const MAX_DELAY_MS = 15_000;
/** Time-out of a silent connection. The server sends at least a comment every 15 s. */
const SILENCE_MS = 40_000;
/** Time for which the page must be hidden before the feed disconnects. */
const HIDDEN_MS = 20_000;
/** After a longer pause the present state is loaded again, instead of all events since then. */
const RESUMABLE_MS = 120_000;
const MAX_EVENT_CHARS = 8_000_000;

/**
 * Event stream with automatic reconnection. Handlers:
 * - `event(kind, data)`: an event, with its data parsed as JSON;
 * - `opened(resumed)`: connected; `resumed` is false if earlier events are missing;
 * - `state(state, detail)`: "connecting", "live", "lost" (`detail` is the time of the next attempt in
 *   milliseconds since 1970), "paused" or "ended";
 * - `refused(error)`: an error response that another attempt would not change.
 *
 * `endless` is true if the server never ends the stream, so that its end is a lost connection.
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

  /** Close the feed permanently. */
  close() {
    this.stopped.abort();
    this.connection?.abort();
    this.tryNow();
    clearTimeout(this.hiddenTimer);
    document.removeEventListener("visibilitychange", this.onVisibility);
    window.removeEventListener("online", this.onOnline);
  }

  /** Start the next attempt immediately. */
  tryNow() {
    this.wake?.();
  }

  async run() {
    let maxDelayMs = MIN_DELAY_MS;
    while (!this.stopped.signal.aborted) {
      const startedAt = Date.now();
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
      if (Date.now() - startedAt > MAX_DELAY_MS) maxDelayMs = MIN_DELAY_MS;
      // With jitter, so that not all pages reconnect to a restarted server at the same time.
      const delay = maxDelayMs * (0.5 + Math.random() / 2);
      maxDelayMs = Math.min(2 * maxDelayMs, MAX_DELAY_MS);
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
    // The server repeats an event that the previous connection received only in part.
    this.partial = null;
    this.handlers.state("connecting");
    this.watch();
    try {
      const response = await request(this.url, { signal, headers });
      this.handlers.state("live");
      this.handlers.opened(resumed);
      // 204, without a body: the job has ended, and there are no further events.
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

  /** Restart the time-out that aborts a silent connection: the server may have disappeared. */
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
