// What pages cannot do without a script: passkeys, numbers that change by themselves, keys, day and night.
"use strict";

(() => {
  // Octets and text

  const octets = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

  // Asking the gateway

  async function ask(address, fields = {}) {
    const body = new URLSearchParams(fields);
    body.set("form_token", document.body.dataset.formToken || "");
    const answer = await fetch(address, { method: "POST", body, headers: { Accept: "application/json" }, redirect: "error" });
    const value = await answer.json();
    if (!answer.ok) throw new Error([value.message, value.remedy].filter(Boolean).join(". "));
    return value;
  }

  // Passkeys (W3C WebAuthn Level 3)

  async function create(options) {
    const asked = structuredClone(options);
    asked.challenge = octets(asked.challenge);
    asked.user.id = octets(asked.user.id);
    asked.excludeCredentials = asked.excludeCredentials.map((one) => ({ ...one, id: octets(one.id) }));
    const made = await navigator.credentials.create({ publicKey: asked });
    return JSON.stringify({
      rawId: text(made.rawId),
      response: {
        clientDataJSON: text(made.response.clientDataJSON),
        attestationObject: text(made.response.attestationObject),
      },
    });
  }

  async function sign(options) {
    const asked = structuredClone(options);
    asked.challenge = octets(asked.challenge);
    asked.allowCredentials = asked.allowCredentials.map((one) => ({ ...one, id: octets(one.id) }));
    const made = await navigator.credentials.get({ publicKey: asked });
    return JSON.stringify({
      rawId: text(made.rawId),
      response: {
        clientDataJSON: text(made.response.clientDataJSON),
        authenticatorData: text(made.response.authenticatorData),
        signature: text(made.response.signature),
      },
    });
  }

  const STEP_UP_MARGIN = 240; // seconds; the gateway takes a proof for five minutes
  async function stepUp() {
    if (Date.now() / 1000 - Number(document.body.dataset.steppedUp || 0) < STEP_UP_MARGIN) return;
    const { publicKey } = await ask("/step-up/begin");
    await ask("/step-up/complete", { response: await sign(publicKey) });
    document.body.dataset.steppedUp = String(Date.now() / 1000);
  }

  const WORDS = {
    NotAllowedError: "The passkey was not used: it was cancelled, or took too long.",
    InvalidStateError: "This key is registered already.",
    SecurityError: "This address is not the one that the console was set up for.",
  };
  const say = (error) => WORDS[error.name] || error.message || "It did not work.";

  function within(form, work) {
    const problem = form.querySelector("[data-problem]") || document.querySelector("[data-busy]");
    const buttons = form.querySelectorAll("button");
    problem.textContent = "";
    buttons.forEach((one) => (one.disabled = true));
    return work().catch((error) => {
      problem.textContent = say(error);
    }).finally(() => buttons.forEach((one) => (one.disabled = false)));
  }

  document.addEventListener("submit", (event) => {
    const form = event.target;
    const { passkey, begin, complete } = form.dataset;
    if (form.dataset.ask && !window.confirm(form.dataset.ask)) {
      event.preventDefault();
    } else if (passkey) {
      event.preventDefault();
      within(form, async () => {
        if ("guardedPasskey" in form.dataset) await stepUp();
        const { publicKey } = await ask(begin);
        const fields = Object.fromEntries(new FormData(form));
        fields.response = await (passkey === "create" ? create : sign)(publicKey);
        const { to } = await ask(complete, fields);
        location.assign(to);
      });
    } else if ("guarded" in form.dataset) {
      event.preventDefault();
      within(form, async () => {
        await stepUp();
        HTMLFormElement.prototype.submit.call(form);
      });
    }
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-step-up]");
    if (button) {
      document.body.dataset.steppedUp = "0";
      within(button.parentElement, async () => {
        await stepUp();
        history.back();
      });
    }
  });

  // Numbers that change by themselves: the gateway sends the same part of the page again

  const trusted = window.trustedTypes
    ? window.trustedTypes.createPolicy("gateway", { createHTML: (html) => html })
    : { createHTML: (html) => html };
  for (const part of document.querySelectorAll("[data-live]")) {
    const source = new EventSource(part.dataset.live);
    source.onmessage = (event) => {
      const open = new Set([...part.querySelectorAll("details[open][id]")].map((one) => one.id));
      // Whoever is in this part with the keyboard stays where they are.
      const usable = () => [...part.querySelectorAll("a, button, input, summary")];
      const place = usable().indexOf(document.activeElement);
      const was = place < 0 ? "" : document.activeElement.outerHTML;
      part.innerHTML = trusted.createHTML(event.data);
      open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
      if (place >= 0) (usable().find((one) => one.outerHTML === was) || usable()[place])?.focus({ preventScroll: true });
    };
  }

  // A case that was referred to us: that somebody has opened it is told by a form, since nothing is done by looking

  const unread = document.querySelector("[data-read]");
  if (unread) {
    fetch(unread.action, { method: "POST", body: new URLSearchParams(new FormData(unread)), redirect: "manual" })
      .then(() => unread.remove())
      .catch(() => {}); // the button stays
  }

  // A list of digests, dropped or chosen. What looks like imagery never leaves this machine

  const BEGINS = [
    [0, [0xff, 0xd8, 0xff]], [0, [0x89, 0x50, 0x4e, 0x47]], [0, [0x47, 0x49, 0x46, 0x38]], [0, [0x42, 0x4d]],
    [0, [0x49, 0x49, 0x2a, 0x00]], [0, [0x4d, 0x4d, 0x00, 0x2a]], [0, [0x52, 0x49, 0x46, 0x46]],
    [4, [0x66, 0x74, 0x79, 0x70]], [0, [0x1a, 0x45, 0xdf, 0xa3]], [0, [0x25, 0x50, 0x44, 0x46]], [0, [0x50, 0x4b, 0x03, 0x04]],
  ];
  async function lines(file) {
    if (/^(image|video|audio)\//.test(file.type)) throw new Error("This is imagery: it is never looked at here. Make its digest on your own machine.");
    const octets = new Uint8Array(await file.slice(0, 4096).arrayBuffer());
    const begins = BEGINS.some(([at, wanted]) => wanted.every((octet, place) => octets[at + place] === octet));
    if (begins || octets.includes(0)) throw new Error("This is no list of digests: it is a picture, a film or another binary file, and stays here.");
    return file.text();
  }
  const drop = document.querySelector("[data-drop]");
  if (drop) {
    const field = drop.elements.digests;
    const take = (file) => within(drop, async () => {
      field.value = await lines(file);
    });
    drop.querySelector("[data-file]").addEventListener("change", (event) => event.target.files[0] && take(event.target.files[0]));
    drop.addEventListener("dragover", (event) => {
      event.preventDefault();
      drop.classList.add("dropping");
    });
    drop.addEventListener("dragleave", () => drop.classList.remove("dropping"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("dropping");
      const [file] = event.dataTransfer.files;
      if (file) take(file);
    });
    drop.addEventListener("submit", (event) => {
      event.preventDefault();
      const busy = document.querySelector("[data-busy]");
      busy.textContent = "Looking up …";
      within(drop, async () => {
        const answer = await fetch(`/look-up${drop.elements.near.checked ? "?near=1" : ""}`, {
          method: "POST",
          body: field.value,
          redirect: "error",
          headers: { "Content-Type": "text/plain", "X-Form-Token": document.body.dataset.formToken, Accept: "application/json, text/html" },
        });
        if (!answer.ok) {
          const value = await answer.json();
          throw new Error([value.message, value.remedy].filter(Boolean).join(". "));
        }
        const shown = document.getElementById(drop.dataset.answers);
        shown.innerHTML = trusted.createHTML(await answer.text());
        shown.querySelector("h2")?.scrollIntoView({ block: "start" });
      }).finally(() => (busy.textContent = ""));
    });
  }

  // Keys: "g" and a letter leads to a screen, "/" to the search

  let waiting = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    if (event.key === "/") {
      const search = document.querySelector("[data-search]");
      if (search) {
        event.preventDefault();
        search.focus();
      }
    } else if (event.key === "g") {
      waiting = Date.now();
    } else if (Date.now() - waiting < 1500) {
      waiting = 0;
      document.querySelector(`nav [data-key="${CSS.escape(event.key)}"]`)?.click();
    }
  });

  // A table of squares: the arrow keys go from one to the next

  const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  document.addEventListener("keydown", (event) => {
    const cell = event.target.closest("[data-arrows] td");
    const step = STEPS[event.key];
    if (!cell || !step || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const row = cell.closest("table").rows[cell.parentElement.rowIndex + step[0]];
    const next = row?.cells[cell.cellIndex + step[1]]?.querySelector("a");
    if (next) {
      event.preventDefault();
      next.focus();
    }
  });

  // Day and night: as the system has it, unless somebody chose

  const button = document.querySelector("[data-theme-button]");
  const dark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const chosen = localStorage.getItem("theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  if (button) {
    const label = () => (button.textContent = dark() ? "Light" : "Dark");
    button.hidden = false;
    label();
    button.addEventListener("click", () => {
      document.documentElement.dataset.theme = dark() ? "light" : "dark";
      localStorage.setItem("theme", document.documentElement.dataset.theme);
      label();
    });
  }
})();
