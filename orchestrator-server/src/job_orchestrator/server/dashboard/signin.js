// The sign-in form: a button for each issuer, and a field for a token.

import { fill, h } from "./dom.js";
import { leaveFor, signInOptions } from "./oidc.js";
import { describe } from "./states.js";

/** Show the form. `problem` is the reason why the previous token was refused, if there is one. */
export function showSignIn(main, problem, signedIn) {
  const issuers = h("div", { class: "issuers" });
  const input = h("input", {
    id: "token",
    type: "password",
    required: true,
    autocomplete: "off",
    spellcheck: "false",
    "aria-describedby": problem ? "token-problem token-note" : "token-note",
    "aria-invalid": problem ? "true" : null,
  });
  const submit = (event) => {
    event.preventDefault();
    const token = input.value.trim();
    if (token) signedIn(token);
  };
  fill(
    main,
    h(
      "section",
      { class: "card sign-in" },
      h("h1", { tabindex: -1 }, "Sign in"),
      issuers,
      h("p", { id: "token-note" }, "This server requires a token. The token is stored in this tab only, and sent to this server only."),
      h(
        "form",
        { on: { submit } },
        h("label", { for: "token" }, "Token"),
        input,
        problem && h("p", { id: "token-problem", class: "problem", role: "alert" }, problem),
        h("button", { class: "button primary", type: "submit" }, "Sign in"),
      ),
    ),
  );
  input.focus();
  showIssuers(issuers);
}

async function showIssuers(place) {
  const options = await signInOptions();
  for (const issuer of options.issuers) {
    const button = h("button", { class: "button primary", type: "button" }, `Sign in at ${new URL(issuer.url).host}`);
    button.addEventListener("click", async () => {
      try {
        await leaveFor(issuer, options);
      } catch (error) {
        button.textContent = describe(error);
      }
    });
    place.append(button);
  }
  if (options.issuers.length > 0) place.append(h("p", {}, "Or enter a token:"));
}
