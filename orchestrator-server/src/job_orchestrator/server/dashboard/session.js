// The token, which is stored for this tab only, and the owner of the token.

const KEY = "jo-token";

let token = null;
try {
  token = sessionStorage.getItem(KEY);
} catch {
  // Storage is disabled: the token is kept until the page is closed.
}

/** The owner of the token. Until the server has answered, an administrator without a token. */
export const whoami = { user_id: null, admin: true, auth: false };

/** Return the Authorization header if there is a token, otherwise no header. */
export function authorization() {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** Return whether a token is set. */
export function hasToken() {
  return token !== null;
}

/** Set the token; null removes it. */
export function setToken(value) {
  token = value;
  try {
    if (value === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, value);
  } catch {
    // Storage is disabled, see above.
  }
}
