// The frame of the application: which view is shown, who looks, and whether the server is there.

import { getJson } from "./api.js";
import { startClock } from "./clock.js";
import { Connection } from "./connection.js";
import { fill, h } from "./dom.js";
import { showJob } from "./job.js";
import { showOverview } from "./overview.js";
import { hasToken, setToken, whoami } from "./session.js";
import { showSignIn } from "./signin.js";
import { failurePage, loading, notFound } from "./states.js";
import { prepareTheme } from "./theme-button.js";

const main = document.getElementById("main");
const connection = new Connection();
/** Where each page was scrolled to when it was left. */
const offsets = new Map();
let view = new AbortController();
let shownPath = null;
let overview = null;
/** The overview as it was seen last, filters and page included. */
let overviewHash = "#/";

/** What a view gets: see `showOverview` and `showJob`. */
function shell() {
  const { signal } = view;
  return {
    main,
    signal,
    overview: overviewHash,
    go: (hash) => {
      location.hash = hash;
    },
    connection: (state, detail) => signal.aborted || connection.show(state, detail),
    connected: (feed) => connection.of(feed),
    refused: (error) => signal.aborted || refused(error),
    title: setTitle,
    announce: (text) => connection.announce(text),
    notFound: (message) => fill(main, notFound(message)),
  };
}

function refused(error) {
  if (error.status === 401) signIn(hasToken() ? error.message : "");
  else fill(main, failurePage(error, route));
}

function leave() {
  view.abort();
  view = new AbortController();
  overview = null;
  connection.reset();
}

/** Show the view that the address names. */
function route() {
  const [path = "", query = ""] = location.hash.slice(1).split("?");
  const job = /^\/jobs\/(\d{1,15})$/.exec(path);
  const atOverview = path === "" || path === "/";
  if (atOverview) overviewHash = location.hash || "#/";
  if (atOverview && overview !== null) {
    overview.apply(new URLSearchParams(query));
    return;
  }
  leave();
  if (job) {
    setTitle(`Job ${job[1]}`);
    showJob(shell(), Number(job[1]));
  } else if (atOverview) {
    setTitle("Overview");
    overview = showOverview(shell(), new URLSearchParams(query));
  } else {
    setTitle("Not found");
    fill(main, notFound("There is no such page"));
  }
  moveTo(atOverview ? "/" : path);
}

/** A new page begins at its heading; one that is returned to, where it was left. */
function moveTo(path) {
  if (shownPath !== null) {
    main.querySelector("h1")?.focus({ preventScroll: true });
    scrollTo(0, offsets.get(path) ?? 0);
  }
  shownPath = path;
}

function setTitle(text) {
  document.title = `${text} · job-orchestrator`;
}

function signIn(problem) {
  leave();
  shownPath = null;
  setToken(null);
  showAccount();
  setTitle("Sign in");
  showSignIn(main, problem, (token) => {
    setToken(token);
    begin();
  });
}

function showAccount() {
  const place = document.getElementById("account");
  if (!hasToken()) {
    fill(place);
    return;
  }
  const name = whoami.admin ? "Administrator" : `User ${whoami.user_id}`;
  const out = () => {
    setToken(null);
    begin();
  };
  fill(place, h("span", {}, name), h("button", { class: "button small", type: "button", on: { click: out } }, "Sign out"));
}

/** Learn who looks, then show what they asked for. */
async function begin() {
  leave();
  fill(main, h("section", { class: "card" }, loading(6)));
  try {
    Object.assign(whoami, await getJson("whoami"));
  } catch (error) {
    if (error.status === 401) {
      signIn(hasToken() ? "The server does not know this token." : "");
      return;
    }
    if (error.status !== 404) {
      connection.unreachable(begin);
      fill(main, failurePage(error, begin));
      return;
    }
  }
  showAccount();
  route();
}

startClock();
prepareTheme(document.getElementById("theme"));
window.addEventListener("hashchange", route);
document.addEventListener("scroll", () => shownPath !== null && offsets.set(shownPath, scrollY), { passive: true });
begin();
