// The sign-in form, which asks for a token.

import { fill, h } from "./dom.js";

/** Show the form. `problem` is the reason why the previous token was refused, if there is one. */
export function showSignIn(main, problem, signedIn) {
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
}
