// Requests to jo-server. Paths are relative to the page, so that a proxy may add a prefix.

import { adjustClock } from "./clock.js";
import { authorization } from "./session.js";

const ROOT = new URL("../", document.baseURI);
const TIMEOUT_MS = 30_000;

/** Error response of the server, with its message; `status` is 0 if the server could not be reached. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Return the URL of a path of the API with the parameters that are set. */
export function apiUrl(path, parameters = {}) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

/** Send a request and return the response. Throws `ApiError`, and the reason with which `signal` aborts. */
export async function request(url, { signal, headers = {}, ...options } = {}) {
  let response;
  try {
    response = await fetch(url, {
      ...options,
      signal,
      headers: { ...headers, ...authorization() },
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "jo-server can't be reached");
  }
  adjustClock(response.headers.get("Date"));
  if (!response.ok) throw new ApiError(response.status, await explanation(response));
  return response;
}

/** Return the JSON of a path. Throws as `request` does. */
export async function getJson(path, parameters = {}, signal = undefined) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const either = signal ? AbortSignal.any([signal, timeout]) : timeout;
  try {
    const response = await request(apiUrl(path, parameters), { signal: either });
    return await response.json();
  } catch (error) {
    if (timeout.aborted && !signal?.aborted) throw new ApiError(0, "jo-server does not answer");
    throw error;
  }
}

/** Pause or resume a service or a user, `{service}` or `{user_id}`. Return all that is paused. */
export async function setPause(paused, what) {
  return sendJson("POST", paused ? "pause" : "resume", what);
}

/** Change a queued job: `{held}` or `{priority}`. Return the job. */
export async function changeJob(id, changes) {
  return sendJson("PATCH", `jobs/${id}`, changes);
}

async function sendJson(method, path, body) {
  const response = await request(apiUrl(path), {
    method,
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
  });
  return response.json();
}

/** Terminate a job. When this returns, none of its processes is running. */
export async function terminate(id) {
  await request(apiUrl(`terminate/${id}`), { method: "POST" });
}

async function explanation(response) {
  try {
    return (await response.json()).message ?? response.statusText;
  } catch {
    return response.statusText || `Status ${response.status}`;
  }
}
