// Proofs of the audit log, checked here and nowhere else: RFC 9162 trees, C2SP signed notes, with the browser's own WebCrypto.
"use strict";

(() => {
  const utf8 = new TextEncoder();
  const hex = (text) => Uint8Array.from(text.match(/../g) || [], (two) => parseInt(two, 16));
  const base64 = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const same = (a, b) => a.length === b.length && a.every((octet, place) => octet === b[place]);
  const joined = (...parts) => {
    const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  };
  const sha256 = async (octets) => new Uint8Array(await crypto.subtle.digest("SHA-256", octets));
  const nodeHash = (left, right) => sha256(joined(Uint8Array.of(1), left, right));
  const leafHash = (entry) => sha256(joined(Uint8Array.of(0), entry));
  const require = (holds, words) => {
    if (!holds) throw new Error(words);
  };

  // RFC 9162 2.1.3.2
  async function inclusion(leaf, index, size, proof) {
    require(index >= 0 && index < size, "the tree has no such entry");
    let fn = BigInt(index);
    let sn = BigInt(size) - 1n;
    let computed = leaf;
    for (const sibling of proof) {
      require(sn > 0n, "the proof is too long");
      if (fn & 1n || fn === sn) {
        computed = await nodeHash(sibling, computed);
        while (!(fn & 1n) && fn) {
          fn >>= 1n;
          sn >>= 1n;
        }
      } else {
        computed = await nodeHash(computed, sibling);
      }
      fn >>= 1n;
      sn >>= 1n;
    }
    require(sn === 0n, "the proof is too short");
    return computed;
  }

  // RFC 9162 2.1.4.2
  async function consistency(oldSize, newSize, oldRoot, newRoot, proof) {
    require(oldSize <= newSize, "the log is shorter than it was");
    if (oldSize === newSize || oldSize === 0) {
      require(proof.length === 0, "a proof where none belongs");
      require(oldSize === 0 || same(oldRoot, newRoot), "two different trees of one size");
      return;
    }
    require(proof.length > 0, "the proof is too short");
    const path = [...proof];
    if ((BigInt(oldSize) & (BigInt(oldSize) - 1n)) === 0n) path.unshift(oldRoot);
    let fn = BigInt(oldSize) - 1n;
    let sn = BigInt(newSize) - 1n;
    while (fn & 1n) {
      fn >>= 1n;
      sn >>= 1n;
    }
    let [fr] = path;
    let sr = fr;
    for (const one of path.slice(1)) {
      require(sn > 0n, "the proof is too long");
      if (fn & 1n || fn === sn) {
        fr = await nodeHash(one, fr);
        sr = await nodeHash(one, sr);
        while (!(fn & 1n) && fn) {
          fn >>= 1n;
          sn >>= 1n;
        }
      } else {
        sr = await nodeHash(sr, one);
      }
      fn >>= 1n;
      sn >>= 1n;
    }
    require(sn === 0n, "the proof is too short");
    require(same(fr, oldRoot), "the log of now does not begin with the log of then");
    require(same(sr, newRoot), "the proof leads to another tree");
  }

  // C2SP signed-note, tlog-checkpoint, tlog-cosignature
  async function verifierKey(text) {
    const [name, id, ...rest] = text.split("+");
    const key = base64(rest.join("+"));
    const wanted = (await sha256(joined(utf8.encode(`${name}\n`), key))).slice(0, 4);
    require(same(wanted, hex(id)), "the key is not the one that its id says");
    require(key[0] === 1 || key[0] === 4, "a key of an unknown kind");
    const imported = await crypto.subtle.importKey("raw", key.slice(1), { name: "Ed25519" }, false, ["verify"]);
    return { name, id: hex(id), kind: key[0], imported };
  }

  function parseNote(note) {
    const cut = note.lastIndexOf("\n\n");
    require(cut > 0, "this is no signed note");
    const text = note.slice(0, cut + 1);
    const [origin, size, root] = text.split("\n");
    require(/^(0|[1-9][0-9]{0,15})$/.test(size || ""), "this is no checkpoint");
    const signatures = note.slice(cut + 2).split("\n").filter(Boolean).map((line) => {
      const [dash, name, raw] = line.split(" ");
      require(dash === "—" && raw, "a signature line has another form");
      return { name, raw: base64(raw) };
    });
    return { text, origin, size: Number(size), root: base64(root), signatures };
  }

  async function signedBy(head, key) {
    for (const { name, raw } of head.signatures) {
      if (name !== key.name || !same(raw.slice(0, 4), key.id)) continue;
      if (key.kind === 1) {
        return (await crypto.subtle.verify("Ed25519", key.imported, raw.slice(4), utf8.encode(head.text))) ? 1 : 0;
      }
      const at = new DataView(raw.buffer, raw.byteOffset + 4, 8).getBigUint64(0);
      const said = utf8.encode(`cosignature/v1\ntime ${at}\n${head.text}`);
      return (await crypto.subtle.verify("Ed25519", key.imported, raw.slice(12), said)) ? Number(at) : 0;
    }
    return 0;
  }

  async function head(note, keyText) {
    const key = await verifierKey(keyText);
    require(key.kind === 1, "this is a witness's key, not a log's");
    const found = parseNote(note);
    require(found.origin === key.name, "the checkpoint is of another log");
    require(await signedBy(found, key), "the log's signature on its checkpoint does not verify");
    return found;
  }

  async function cosigners(found, texts) {
    const named = [];
    for (const text of texts) {
      const key = await verifierKey(text);
      const at = await signedBy(found, key);
      if (at) named.push(`${key.name.split("/")[1] || key.name} on ${new Date(at * 1000).toISOString().slice(0, 10)}`);
    }
    return named;
  }

  // What this browser has verified before: the key that it knows, and the largest tree head

  const KEPT = "largest checkpoint that this browser verified";
  const KNOWN = "log key that this browser knows";
  async function known(keyText) {
    const before = localStorage.getItem(KNOWN);
    require(!before || before === keyText, "the log's key is not the one that this browser knew: compare it by voice");
    localStorage.setItem(KNOWN, keyText);
    return before ? "as this browser knew it" : "for the first time: compare it with the identity card";
  }

  async function extend(found, keyText, ask) {
    const before = localStorage.getItem(KEPT);
    if (before) {
      const old = await head(before, keyText);
      if (old.size > found.size) return `this browser has seen ${old.size.toLocaleString("en")} entries already`;
      const answer = await ask(old.size);
      const now = await head(answer.note, keyText);
      await consistency(old.size, now.size, old.root, now.root, answer.proof.map(hex));
      localStorage.setItem(KEPT, answer.note);
      return `the ${old.size.toLocaleString("en")} entries that this browser saw before are unchanged`;
    }
    localStorage.setItem(KEPT, found.note);
    return "this browser keeps it, and compares from now on";
  }

  const asked = async (address) => {
    const answer = await fetch(address, { headers: { Accept: "application/json" }, redirect: "error" });
    const value = await answer.json();
    require(answer.ok, [value.message, value.remedy].filter(Boolean).join(". "));
    return value;
  };
  const sinceSize = (old) => asked(`/log/since?old=${old}`);

  // The pages

  function teller(list) {
    list.replaceChildren();
    return (words, good = true) => {
      const line = document.createElement("li");
      const mark = document.createElement("span");
      mark.className = `level level-${good ? "good" : "bad"}`;
      mark.textContent = good ? "holds" : "fails";
      line.append(mark, ` ${words}`);
      list.append(line);
    };
  }

  async function told(list, work) {
    const tell = teller(list);
    try {
      await work(tell);
      list.dataset.verdict = "holds";
    } catch (error) {
      tell(error.message, false);
      list.dataset.verdict = "fails";
    }
  }

  async function proveLeaf(index, tell) {
    const given = await asked(`/log/entry/${index}/proof`);
    require(given.index === index, "the proof is for another entry");
    tell(`the log's key ${await known(given.key)}`);
    const found = await head(given.note, given.key);
    tell(`the log ${found.origin} signed its tree of ${found.size.toLocaleString("en")} entries`);
    const entry = hex(given.entry);
    if (given.event !== null) {
      const commitment = await sha256(joined(utf8.encode("event 1\n"), hex(given.salt), utf8.encode(given.event)));
      require(same(entry, joined(Uint8Array.of(1), commitment)), "the event is not the one that the entry commits to");
      const shown = document.querySelector("[data-event]");
      require(!shown || shown.textContent === given.event, "the page shows another event than the log");
      tell("the event is the one that the entry commits to");
    } else {
      tell(entry[0] === 2 ? "the entry is the digest of a block of hash entries" : "the event was erased on record; its entry stands");
    }
    const root = await inclusion(await leafHash(entry), index, found.size, given.proof.map(hex));
    require(same(root, found.root), "the tree does not hold this entry here");
    tell(`the tree holds it as entry ${index}`);
    const named = await cosigners(found, given.witnesses);
    tell(named.length ? `partners have witnessed this tree: ${named.join(", ")}` : "no partner has witnessed this entry yet");
    found.note = given.note;
    tell(await extend(found, given.key, sinceSize));
  }

  async function proveUnaltered(text, tell) {
    const keyText = (await asked("/log/since?old=0")).key;
    tell(`the log's key ${await known(keyText)}`);
    const old = await head(text, keyText);
    tell(`the log signed what you kept: a tree of ${old.size.toLocaleString("en")} entries`);
    const answer = await sinceSize(old.size);
    const now = await head(answer.note, keyText);
    await consistency(old.size, now.size, old.root, now.root, answer.proof.map(hex));
    tell(`it has ${now.size.toLocaleString("en")} entries now, and begins with exactly those`);
    const named = await cosigners(old, answer.witnesses);
    if (named.length) tell(`partners had witnessed what you kept: ${named.join(", ")}`);
    now.note = answer.note;
    tell(await extend(now, keyText, sinceSize));
    const offered = document.querySelector("[data-newest]");
    if (offered) {
      offered.textContent = answer.note;
      offered.closest("[hidden]")?.removeAttribute("hidden");
    }
  }

  for (const button of document.querySelectorAll("[data-prove]")) {
    const list = document.getElementById(button.getAttribute("aria-controls"));
    button.addEventListener("click", () => told(list, (tell) => proveLeaf(Number(button.dataset.prove), tell)));
  }
  document.querySelector("[data-prove-all]")?.addEventListener("click", async (event) => {
    event.target.disabled = true;
    for (const row of document.querySelectorAll("[data-leaf]")) {
      const cell = row.querySelector("[data-verdict-cell]");
      try {
        await proveLeaf(Number(row.dataset.leaf), () => {});
        cell.replaceChildren(Object.assign(document.createElement("span"), { className: "level level-good", textContent: "holds" }));
      } catch (error) {
        cell.replaceChildren(Object.assign(document.createElement("span"), { className: "level level-bad", textContent: error.message }));
      }
    }
    event.target.disabled = false;
  });
  document.querySelector("[data-forget]")?.addEventListener("click", () => {
    if (!window.confirm("Forget the key and the checkpoint that this browser compares with?")) return;
    localStorage.removeItem(KEPT);
    localStorage.removeItem(KNOWN);
    teller(document.getElementById("verdict"))("forgotten: the next proof begins anew");
  });
  document.querySelector("[data-unaltered]")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target;
    const given = form.elements.note.value;
    const kept = given.trim() ? `${given.trim()}\n` : localStorage.getItem(KEPT) || "";
    told(document.getElementById("verdict"), (tell) => {
      require(kept, "paste a checkpoint that you kept: this browser has verified none yet");
      return proveUnaltered(kept, tell);
    });
  });
})();
