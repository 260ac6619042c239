// The token, kept for this tab only, and what the server says of its owner.

const KEY = "jo-token";

let token = null;
try {
  token = sessionStorage.getItem(KEY);
} catch {
  // Storage is switched off: the token lives as long as the page.
}

/** Who looks at this: before anything is known, everybody may see everything. */
export const whoami = { user_id: null, admin: true, auth: false };

/** The Authorization header, if there is a token. */
export function authorization() {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** Whether a token is set. */
export function hasToken() {
  return token !== null;
}

/** Set the token; null signs out. */
export function setToken(value) {
  token = value;
  try {
    if (value === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, value);
  } catch {
    // As above.
  }
}
