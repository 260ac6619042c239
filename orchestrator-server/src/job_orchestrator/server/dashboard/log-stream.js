// Reads one output stream of a job while it grows. A broken connection is resumed at the same byte. The
// connection is closed while the page is hidden.

import { ApiError, apiUrl, request } from "./api.js";

const MIN_DELAY_MS = 1000;
const MAX_DELAY_MS = 15_000;
const HIDDEN_MS = 20_000;

/**
 * Reader of one stream. Handlers: `text(text)` receives the output, `state(state, detail)` the states
 * "open", "lost", "done" and "error" (`detail` is the error), `rerun()` that the output begins again, because
 * it is that of another attempt. Set `over` when the job has ended.
 */
export class LogStream {
  constructor(id, stream, { text, state, rerun }) {
    this.id = id;
    this.stream = stream;
    this.text = text;
    this.state = state;
    this.rerun = rerun;
    this.over = false;
    this.finished = false;
    this.running = null;
    this.reset();
  }

  reset() {
    this.offset = 0;
    this.attempt = null;
    this.decoder = new TextDecoder();
  }

  /** Start to read, unless the stream is being read or was read to its end. */
  start() {
    if (this.running !== null || this.finished) return;
    const stop = new AbortController();
    this.running = stop;
    let timer = null;
    const onVisibility = () => {
      clearTimeout(timer);
      if (document.hidden) timer = setTimeout(() => this.connection?.abort(), HIDDEN_MS);
      else this.wake?.();
    };
    document.addEventListener("visibilitychange", onVisibility, { signal: stop.signal });
    this.run(stop.signal);
  }

  /** Stop reading; `start` continues at the same byte. */
  stop() {
    this.running?.abort();
    this.connection?.abort();
    this.wake?.();
    this.running = null;
  }

  async run(stopped) {
    let delayMs = MIN_DELAY_MS;
    while (!stopped.aborted) {
      // A read that starts after the end of the job reads the complete output.
      const complete = this.over;
      const before = this.offset;
      const outcome = await this.read(stopped, !complete);
      if (stopped.aborted) return;
      if (outcome instanceof ApiError) {
        this.running = null;
        this.state("error", outcome);
        return;
      }
      if (outcome === "end" && complete) {
        this.finished = true;
        this.running = null;
        this.state("done");
        return;
      }
      if (this.offset > before || outcome === "end") delayMs = MIN_DELAY_MS;
      if (outcome === "rerun") continue;
      if (outcome === "lost") this.state("lost");
      if (document.hidden) await this.pause(600_000);
      else if (!(outcome === "end" && this.over)) await this.pause(delayMs);
      delayMs = Math.min(2 * delayMs, MAX_DELAY_MS);
    }
  }

  async read(stopped, follow) {
    this.connection = new AbortController();
    const { signal } = this.connection;
    if (stopped.aborted) return "lost";
    try {
      const url = apiUrl(`jobs/${this.id}/logs`, { stream: this.stream, offset: this.offset, follow: follow ? 1 : 0 });
      const response = await request(url, { signal });
      const attempt = response.headers.get("Job-Attempt");
      if (this.offset > 0 && attempt !== this.attempt) {
        this.connection.abort();
        this.reset();
        this.rerun();
        return "rerun";
      }
      this.attempt = attempt;
      this.state("open");
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (stopped.aborted) return "lost";
        if (done) return "end";
        this.offset += value.byteLength;
        this.text(this.decoder.decode(value, { stream: true }));
      }
    } catch (error) {
      return error instanceof ApiError && error.status >= 400 && error.status < 500 ? error : "lost";
    }
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
