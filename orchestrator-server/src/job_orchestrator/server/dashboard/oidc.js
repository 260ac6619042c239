// Sign-in at an issuer (OpenID Connect): authorization code with PKCE. The server exchanges the code.

import { ApiError, apiUrl, getJson, request } from "./api.js";

const KEY = "jo-sign-in";

/** Return the issuers at which people can sign in; none if the server does not answer. */
export async function signInOptions() {
  try {
    return await getJson("sign-in");
  } catch {
    return { issuers: [] };
  }
}

/** Leave for the page of an issuer. It leads back to this page with a code. */
export async function leaveFor(issuer, { client_id, scope }) {
  const verifier = random();
  const state = random();
  const nonce = random();
  const back = here();
  sessionStorage.setItem(KEY, JSON.stringify({ issuer: issuer.url, verifier, state, nonce, back, view: location.hash }));
  const url = new URL(issuer.authorization_endpoint);
  const parameters = {
    response_type: "code",
    client_id,
    scope,
    redirect_uri: back,
    state,
    nonce,
    code_challenge: base64(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))),
    code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  location.assign(url);
}

/** Return the token of a sign-in from which the browser comes back, null if there is none. */
export async function returnedToken() {
  const answer = new URLSearchParams(location.search);
  if (!answer.has("state") && !answer.has("error")) return null;
  const begun = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
  sessionStorage.removeItem(KEY);
  // Neither the code stays in the history, nor is it sent again when the page is loaded again.
  history.replaceState(null, "", here() + (begun?.view ?? ""));
  if (answer.has("error")) throw new ApiError(0, answer.get("error_description") ?? answer.get("error"));
  if (begun === null || begun.state !== answer.get("state")) throw new ApiError(0, "This sign-in was not begun in this tab; sign in again");
  const code = { issuer: begun.issuer, code: answer.get("code") ?? "", code_verifier: begun.verifier, redirect_uri: begun.back };
  const response = await request(apiUrl("sign-in"), { method: "POST", body: JSON.stringify(code) });
  const { token } = await response.json();
  if (claims(token).nonce !== begun.nonce) throw new ApiError(0, "The answer of the issuer belongs to another sign-in; sign in again");
  return token;
}

function claims(token) {
  const bytes = Uint8Array.from(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")), (each) => each.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

function here() {
  return location.origin + location.pathname;
}

function random() {
  return base64(crypto.getRandomValues(new Uint8Array(32)));
}

function base64(bytes) {
  return btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
