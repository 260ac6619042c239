// Application shell: routing between the views, sign-in, and the state of the connection.

import { getJson } from "./api.js";
import { startClock } from "./clock.js";
import { Connection } from "./connection.js";
import { fill, h } from "./dom.js";
import { showJob } from "./job.js";
import { showOverview } from "./overview.js";
import { hasToken, setToken, whoami } from "./session.js";
import { returnedToken } from "./oidc.js";
import { showSignIn } from "./signin.js";
import { describe, failurePage, loading, notFound } from "./states.js";
import { prepareTheme } from "./theme-button.js";

const main = document.getElementById("main");
const connection = new Connection();
/** Scroll position of each page when it was left. */
const scrollOffsets = new Map();
let view = new AbortController();
let shownPath = null;
let overview = null;
/** Address of the overview when it was last shown, with its filters and page. */
let overviewHash = "#/";

/** Return the services of the shell for a view, see `showOverview` and `showJob`. */
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
    connected: (feed) => connection.setFeed(feed),
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

/** Show the view of the current address. */
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
  restorePosition(atOverview ? "/" : path);
}

/** Focus the heading of a page, and restore the scroll position of a page that was shown before. */
function restorePosition(path) {
  if (shownPath !== null) {
    main.querySelector("h1")?.focus({ preventScroll: true });
    scrollTo(0, scrollOffsets.get(path) ?? 0);
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
    start();
  });
}

function showAccount() {
  const element = document.getElementById("account");
  if (!hasToken()) {
    fill(element);
    return;
  }
  const name = whoami.name || (whoami.admin ? "Administrator" : `User ${whoami.user_id}`);
  const signOut = () => {
    setToken(null);
    start();
  };
  fill(element, h("span", {}, name), h("button", { class: "button small", type: "button", on: { click: signOut } }, "Sign out"));
}

/** Fetch the owner of the token, then show the view of the current address. */
async function start() {
  leave();
  fill(main, h("section", { class: "card" }, loading(6)));
  try {
    Object.assign(whoami, await getJson("whoami"));
  } catch (error) {
    if (error.status === 401) {
      signIn(hasToken() ? error.message || "The server does not know this token." : "");
      return;
    }
    if (error.status !== 404) {
      connection.unreachable(start);
      fill(main, failurePage(error, start));
      return;
    }
  }
  showAccount();
  route();
}

/** Take the token of a sign-in at an issuer, if the browser comes back from one, and start. */
async function startAfterSignIn() {
  try {
    const token = await returnedToken();
    if (token !== null) setToken(token);
  } catch (error) {
    signIn(describe(error));
    return;
  }
  start();
}

startClock();
prepareTheme(document.getElementById("theme"));
window.addEventListener("hashchange", route);
document.addEventListener("scroll", () => shownPath !== null && scrollOffsets.set(shownPath, scrollY), { passive: true });
startAfterSignIn();
