// Whether what is shown is live: a mark in the head of the page, and a banner when it is not.

import { fill, h, setText } from "./dom.js";

/** A short break, such as a restart of the server, is not worth a banner. */
const PATIENCE_MS = 1500;

/** The state of the view's connection. */
export class Connection {
  constructor() {
    this.mark = document.getElementById("live");
    this.banner = document.getElementById("banner");
    this.announcer = document.getElementById("announcer");
    this.reset();
  }

  /** Another view: nothing is known yet. */
  reset() {
    this.feed = null;
    clearTimeout(this.patience);
    clearInterval(this.countdown);
    this.patience = null;
    this.lostAt = null;
    fill(this.banner);
    fill(this.mark);
    this.mark.className = "live";
  }

  /** The feed that "Try now" is for. */
  of(feed) {
    this.feed = feed;
  }

  /** A state of a feed; `detail` is when it tries again. */
  show(state, detail) {
    this.retryAt = state === "lost" ? detail : null;
    if (state === "live") this.restored();
    else if (state === "lost") this.lost();
    else if (state === "connecting" && this.lostAt === null) this.setMark("wait", "Connecting");
    else if (state === "ended") this.setMark("", "");
  }

  /** The server did not answer at all; `retry` is what to do. */
  unreachable(retry) {
    this.setMark("bad", "Disconnected");
    const wait = setTimeout(retry, 5000);
    this.patience = wait;
  }

  /** Say something to a screen reader. */
  announce(text) {
    setText(this.announcer, text);
  }

  restored() {
    clearTimeout(this.patience);
    clearInterval(this.countdown);
    this.patience = null;
    if (this.banner.childElementCount > 0) this.announce("Connected again");
    this.lostAt = null;
    fill(this.banner);
    this.setMark("good", "Live");
  }

  lost() {
    this.lostAt ??= new Date();
    this.setMark("bad", "Disconnected");
    this.patience ??= setTimeout(() => this.showBanner(), PATIENCE_MS);
  }

  showBanner() {
    const since = this.lostAt.toLocaleTimeString(undefined, { hourCycle: "h23" });
    const next = h("span", { class: "banner-next", "aria-hidden": "true" });
    const button = h("button", { class: "button small", type: "button" }, "Try now");
    button.addEventListener("click", () => this.feed?.tryNow());
    fill(
      this.banner,
      h("div", { class: "banner" }, h("p", {}, h("strong", {}, "No connection to jo-server. "), `What you see is of ${since}. `, next), button),
    );
    const count = () => {
      const seconds = this.retryAt === null ? 0 : Math.ceil((this.retryAt - Date.now()) / 1000);
      setText(next, seconds > 0 ? `Next try in ${seconds} s.` : "Trying …");
    };
    clearInterval(this.countdown);
    this.countdown = setInterval(count, 500);
    count();
  }

  setMark(tone, text) {
    this.mark.className = `live ${tone}`;
    if (this.mark.textContent !== text) fill(this.mark, text && h("i", { class: "live-dot", "aria-hidden": "true" }), text && h("span", {}, text));
  }
}
