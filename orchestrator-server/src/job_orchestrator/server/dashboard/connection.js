// State of the connection: a mark in the page header, and a banner while the connection is lost.

import { fill, h, setText } from "./dom.js";

/** Delay of the banner, so that it does not appear for a short interruption such as a restart. */
const BANNER_DELAY_MS = 1500;

/** Shows the state of the connection of the current view. */
export class Connection {
  constructor() {
    this.mark = document.getElementById("live");
    this.banner = document.getElementById("banner");
    this.announcer = document.getElementById("announcer");
    this.reset();
  }

  /** Forget the state, because another view is shown. */
  reset() {
    this.feed = null;
    clearTimeout(this.bannerTimer);
    clearInterval(this.countdown);
    this.bannerTimer = null;
    this.lostAt = null;
    fill(this.banner);
    fill(this.mark);
    this.mark.className = "live";
  }

  /** Set the feed that "Try now" reconnects. */
  setFeed(feed) {
    this.feed = feed;
  }

  /** Show a state of the feed; `detail` is the time of its next attempt, for the state "lost". */
  show(state, detail) {
    this.retryAt = state === "lost" ? detail : null;
    if (state === "live") this.restored();
    else if (state === "lost") this.lost();
    else if (state === "connecting" && this.lostAt === null) this.setMark("wait", "Connecting");
    else if (state === "ended") this.setMark("", "");
  }

  /** Show that the server did not answer, and call `retry` after 5 seconds. */
  unreachable(retry) {
    this.setMark("bad", "Disconnected");
    this.bannerTimer = setTimeout(retry, 5000);
  }

  /** Announce a text to screen readers. */
  announce(text) {
    setText(this.announcer, text);
  }

  restored() {
    clearTimeout(this.bannerTimer);
    clearInterval(this.countdown);
    this.bannerTimer = null;
    if (this.banner.childElementCount > 0) this.announce("Reconnected");
    this.lostAt = null;
    fill(this.banner);
    this.setMark("good", "Live");
  }

  lost() {
    this.lostAt ??= new Date();
    this.setMark("bad", "Disconnected");
    this.bannerTimer ??= setTimeout(() => this.showBanner(), BANNER_DELAY_MS);
  }

  showBanner() {
    const since = this.lostAt.toLocaleTimeString(undefined, { hourCycle: "h23" });
    const next = h("span", { class: "banner-next", "aria-hidden": "true" });
    const button = h("button", { class: "button small", type: "button" }, "Try now");
    button.addEventListener("click", () => this.feed?.tryNow());
    fill(
      this.banner,
      h("div", { class: "banner" }, h("p", {}, h("strong", {}, "No connection to jo-server. "), `The data shown are from ${since}. `, next), button),
    );
    const count = () => {
      const seconds = this.retryAt === null ? 0 : Math.ceil((this.retryAt - Date.now()) / 1000);
      setText(next, seconds > 0 ? `Next attempt in ${seconds} s.` : "Reconnecting …");
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
