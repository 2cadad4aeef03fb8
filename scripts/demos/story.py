"""The story that the demo tells, chapter by chapter.

Each number printed is one that a gateway reported. What must hold is checked on the way; where it does not, the story
ends with a StageError that says what.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import invented
import wire
from commands import Commands
from stage import PASSPHRASE, SYNC_SECONDS, Gateway, Json, StageError, Teller, free_ports, together, wait_for

ROOT = Path(__file__).resolve().parents[2]
VERIFY_RECEIPT = ROOT / "scripts" / "verify_receipt.py"
NAMES = {
    "XA-NCVI": "Victim Identification Centre of XA",
    "XB-NCVI": "Victim Identification Centre of XB",
    "XC-NCVI": "Victim Identification Centre of XC",
}
LIST = "identified-victims"
XA_LIST, XB_LIST = f"XA-NCVI/{LIST}", f"XB-NCVI/{LIST}"
LEGAL_BASIS = {
    "XA-NCVI": "XA Police Data Act 2019, section 12",
    "XB-NCVI": "XB Act on Police Cooperation 2021, section 4",
}
OFFICER = "duty-officer"
XB_SHARE = 10  # XB's own list is this much smaller than XA's
LATE_FIRST, LATE_FINDS = 450_000, 3  # numbers of samples that nobody else has
XB_FIRST = 500_000
NOT_VERIFIED = 4  # exit code of verify_receipt.py
AUDIT_BROKEN = 10  # exit code of `gateway audit verify`

GROUPS = {
    "share_existence": "existence",
    "share_cryptographic_digests": "file digests",
    "share_perceptual_digests": "perceptual digests",
    "share_series": "series",
    "share_victim_status": "victim status",
}
# What the rules of the demo tell apart, in the order of the table: name -> does a label belong to it?
CLASSES: dict[str, Callable[[Json], bool]] = {
    "H0, H1, child identified": lambda label: _open(label) and label["victim_status"] == "identified",
    "H0, H1, child is a lead": lambda label: _open(label) and label["victim_status"] == "lead",
    "H2": lambda label: label["handling"] == "H2",
    "H3": lambda label: label["handling"] == "H3",
    "embargo": lambda label: "embargo" in label["restrictions"],
}


class Story:
    """Three gateways, and what the story remembers from chapter to chapter."""

    def __init__(self, folder: Path, entries: int, teller: Teller, commands: Commands) -> None:
        self.folder = folder
        self.entries = entries
        self.teller = teller
        self.passphrase_file = folder / "passphrase"
        self.passphrase_file.touch(mode=0o600)
        self.passphrase_file.write_text(f"{PASSPHRASE}\n", encoding="utf-8")
        ports = free_ports(2 * len(NAMES))
        self.xa, self.xb, self.xc = (
            Gateway(agency, name, folder / agency, ports.pop(), ports.pop(), self.passphrase_file, commands)
            for agency, name in NAMES.items()
        )
        self.gateways = (self.xa, self.xb, self.xc)
        self.receipt = folder / "receipt-from-XB.json"
        self._log_key = ""  # XB's, from its identity card
        self._labels: list[Json] = []  # XA's label table
        self._delivered = 0  # entries of XA's list that XB was sent
        self._message_id = ""  # of the last page of the push
        self._late_entry = ""  # a late find that everybody may have

    def tell(self) -> None:
        """The whole story, in order."""
        self.teller.title(
            f"Three agencies exchange lists of identified victims: {self.entries:,} entries, all of them invented."
        )
        self._found()
        self._enrol()
        self._import()
        self._explain()
        self._push()
        self._judge()
        self._prove_receipt()
        self._alter()
        self._follow()
        self._look_up()
        self._withdraw()
        self._audit()

    def console_link(self) -> str:
        """A link by which whoever looks on registers a passkey at XA's console, for every role."""
        roles = [word for role in ("administrator", "analyst", "auditor") for word in ("--role", role)]
        signed = ("--admin", OFFICER, "--admin-passphrase-file", str(self.passphrase_file))
        return str(self.xa.run("console", "invite", OFFICER, *roles, *signed)["link"])

    def stop(self) -> None:
        """End every gateway that runs."""
        for one in self.gateways:
            one.stop()

    # Before anything is exchanged

    def _found(self) -> None:
        say = self.teller
        say.chapter("Three agencies found their gateways")
        say.command(self.xa.agency, "gateway init --agency XA-NCVI --name '…' --demo")
        together(*(_bound(self._found_one, one) for one in self.gateways))
        say.say(
            "Each has its own keys (Ed25519 and ML-DSA-65 to sign, X-Wing to open what is sealed for it), the rules of "
            "its own law, and an audit log that begins here. A guarded act takes one administrator in this demo; "
            "anywhere else it takes two."
        )

    def _found_one(self, one: Gateway) -> None:
        listen = f"127.0.0.1:{one.port}"
        one.run("init", "--agency", one.agency, "--name", one.name, "--listen", listen, "--demo")
        one.settle(SYNC_SECONDS)
        one.run("admin", "add", OFFICER, "--admin-passphrase-file", str(self.passphrase_file))
        if one.agency in LEGAL_BASIS:
            basis = LEGAL_BASIS[one.agency]
            one.run("set", "create", LIST, "--purpose", "victim identification", "--legal-basis", basis)

    def _enrol(self) -> None:
        say = self.teller
        say.chapter("They exchange identity cards, and compare fingerprints by voice")
        cards = {one.agency: self.folder / f"{one.agency}.card.json" for one in self.gateways}
        say.command(self.xb.agency, "gateway identity export XB-NCVI.card.json")
        exported = together(*(_bound(one.run, "identity", "export", str(cards[one.agency])) for one in self.gateways))
        read_aloud = {card["agency"]: card["fingerprint"] for card in exported}
        for agency, fingerprint in read_aloud.items():
            say.line(f"{agency}   {fingerprint}")
        say.command(self.xa.agency, f"gateway partner add XB-NCVI.card.json --admin {OFFICER}")
        together(*(_bound(self._enrol_others, one, cards, read_aloud) for one in self.gateways))
        say.good("Read aloud and on the screen they are the same. Each agency has enrolled the two others.")

    def _enrol_others(self, one: Gateway, cards: dict[str, Path], read_aloud: dict[str, str]) -> None:
        for agency, card in cards.items():
            if agency != one.agency:
                signed = ("--admin", OFFICER, "--admin-passphrase-file", str(self.passphrase_file))
                screen = one.screen("partner", "add", str(card), *signed)
                _must(read_aloud[agency] in screen, "a card is not the one that its owner read aloud")
                _must("Done:" in screen, f"{one.agency} could not enrol {agency}")

    def _import(self) -> None:
        say = self.teller
        say.chapter("XA and XB take in the lists of their own systems")
        xa_file, xb_file = self.folder / "xa-list.csv", self.folder / "xb-list.csv"
        bad = invented.write_xa_list(xa_file, self.entries)
        invented.write_xb_list(xb_file, self.entries // XB_SHARE, XB_FIRST)
        say.command(self.xa.agency, f"gateway import xa-list.csv --set {LIST}")
        xa_report, xb_report = together(
            _bound(self.xa.run, "import", str(xa_file), "--set", LIST),
            _bound(self.xb.run, "import", str(xb_file), "--set", LIST),
        )
        _must(xa_report["added"] == self.entries, "the import did not add every good row")
        _must(xa_report["refused"] == bad, "the import did not refuse every bad row")
        say.say(
            f"XA: {xa_report['read']:,} rows read, {xa_report['accepted']:,} accepted, {bad} refused. A bad row is "
            "left out by itself and named, never guessed at:"
        )
        for row in xa_report["refused_rows"]:
            say.point(f"line {row['line']:,}, {row['field']}: {row['reason']}")
        poor = xa_report["dropped_fields"]["pdq"]
        say.say(f"{poor:,} PDQ values of poor quality were dropped: they match too much.")
        say.say(f"XB: {xb_report['accepted']:,} accepted. No picture, file name or path came in with any of them.")

    def _explain(self) -> None:
        say = self.teller
        say.chapter("What may leave XA, and why not the rest? The rules are asked first")
        say.command(self.xa.agency, f"gateway policy explain --partner XC-NCVI --set {LIST} --handling H1 …")
        self._labels = self.xa.run("set", "show", LIST)["label_table"]
        partners = (self.xb.agency, self.xc.agency)
        asked = [(name, partner) for name in CLASSES for partner in partners]
        said = together(*(_bound(self._ask, name, partner) for name, partner in asked))
        answers = dict(zip(asked, said, strict=True))
        rows = [("entries of XA under", "", *(f"{partner} receives" for partner in partners))]
        for name, belongs in CLASSES.items():
            cells = (_what_leaves(answers[name, partner]) for partner in partners)
            rows.append((name, f"{self._count(belongs):,}", *cells))
        say.table(rows, right=(1,))
        say.say("Every decision names its rule, and the rule its law:")
        for words in _rules_that_narrow(said):
            say.point(words)
        say.point("For everything else that is missing: no rule permits it, and so it stays at home.")

    def _ask(self, name: str, partner: str) -> list[Json]:
        """What XA's policy decides for a partner and the commonest label of a class."""
        label = max(filter(CLASSES[name], self._labels), key=lambda one: int(one["entries"]))
        words = [
            *("--handling", label["handling"], "--category", label["category"]),
            *("--victim-status", label["victim_status"], "--evaluation", label["evaluation"]),
            *("--legal-basis", label["legal_basis"]),
            *(word for tag in label["restrictions"] for word in ("--restriction", tag)),
        ]
        decisions: list[Json] = self.xa.run("policy", "explain", "--partner", partner, "--set", LIST, *words)[
            "decisions"
        ]
        return decisions

    # The exchange

    def _push(self) -> None:
        say = self.teller
        say.chapter("XA pushes its list to XB")
        self.xb.serve()
        say.command(self.xa.agency, f"gateway push --to XB-NCVI --set {LIST}")
        done = self.xa.run("push", "--to", self.xb.agency, "--set", LIST)
        self._delivered = done["changes"]
        held_back = self.entries - self._delivered
        _must(held_back == self._count(CLASSES["embargo"]), "what stayed at home is not what is under embargo")
        say.say(
            f"{self._delivered:,} entries went to XB in {_number(done['pages'], 'page')}, signed by XA and sealed for "
            f"XB: {done['bytes']:,} bytes, {done['bytes'] / self._delivered:.0f} an entry. {held_back:,} entries never "
            f"left XA: the series '{invented.EMBARGOED_SERIES}' is under embargo."
        )
        _must(done["receipts"], "XB gave no receipt")
        message_id = self._message_id = list(done["receipts"])[-1]
        # The key comes from the identity card that XA holds of XB, not from the receipt.
        self._log_key = self.xa.run("receipt", "export", message_id, str(self.receipt))["log_key"]
        say.good(f"XB answered each page with a receipt ({message_id[:12]}…). XA verified it and keeps it.")

    def _judge(self) -> None:
        say = self.teller
        say.chapter("XB decides for itself what it takes")
        taken, decisions = together(
            _bound(self._taken_in, self.xb, "push_received"),
            _bound(self._ask_receiver, self.xb, "--handling", "H1", "--evaluation", "A1"),
        )
        arrived, refused = taken[XA_LIST]
        too_secret = self._count(CLASSES["H3"])
        doubtful = self._count(lambda one: one["evaluation"] == "D4" and one["handling"] != "H3")
        _must(arrived == self._delivered, "XB does not account for every entry that XA sent")
        _must(refused == too_secret + doubtful, "XB refused other entries than its rules say")
        say.say(
            f"Of {arrived:,} entries that arrived, XB took {arrived - refused:,} and refused {refused:,}. Its rule:"
        )
        for decision in decisions:
            for words in _rules_of(decision):
                say.point(words)
        say.say(
            f"{too_secret:,} are under H3, and the source of {doubtful:,} is rated D. Of a refused entry XB keeps no "
            "value, only what lets both sides compare their lists."
        )

    def _ask_receiver(self, one: Gateway, *label: str) -> list[Json]:
        about = ("--partner", self.xa.agency, "--set", XA_LIST, "--action", "receive")
        decisions: list[Json] = one.run("policy", "explain", *about, *label)["decisions"]
        return decisions

    def _taken_in(self, one: Gateway, kind: str) -> dict[str, tuple[int, int]]:
        """Set -> (changes that arrived, changes refused of these), as a gateway's audit log tells."""
        found: dict[str, tuple[int, int]] = {}
        for event in one.run("audit", "list", "--kind", kind, "--limit", "1000"):
            page = event["details"]
            arrived, refused = found.get(page["set"], (0, 0))
            found[page["set"]] = arrived + page["changes"], refused + page["refused"]
        return found

    def _prove_receipt(self) -> None:
        say = self.teller
        say.chapter("The receipt is checked without any gateway")
        pages = (event["details"] for event in self.xa.run("audit", "list", "--kind", "page_sent"))
        sent = next(page for page in pages if page["message_id"] == self._message_id)
        command = f"verify_receipt.py {self.receipt.name} --log-key '{self._log_key[:24]}…' --manifest-digest …"
        say.command(self.xa.agency, command)
        code, said = self._verify(self.receipt, sent["manifest_digest"])
        _must(code == 0, f"the receipt does not verify: {said}")
        for line in said.splitlines():
            say.line(line)
        altered = self.receipt.with_name("receipt-altered.json")
        raw = self.receipt.read_bytes()
        # The event says in clear how much was taken in; one less is written there.
        taken, less = (f'changes\\":{count},'.encode() for count in (sent["changes"], sent["changes"] - 1))
        _must(raw.count(taken) == 1, "the receipt does not say how much was taken in")
        altered.write_bytes(raw.replace(taken, less))
        code, said = self._verify(altered, sent["manifest_digest"])
        _must(code == NOT_VERIFIED, "an altered receipt was not refused")
        say.say("The same receipt with one entry less in it:")
        say.bad(said.splitlines()[-1])

    def _verify(self, receipt: Path, manifest_digest: str) -> tuple[int, str]:
        command = [sys.executable, str(VERIFY_RECEIPT), str(receipt), "--log-key", self._log_key]
        done = subprocess.run(
            [*command, "--manifest-digest", manifest_digest], capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout.strip() or done.stderr.strip()

    def _alter(self) -> None:
        say = self.teller
        say.chapter("A message is altered on its way, and another arrives twice")
        late = self.folder / "xa-late-finds.csv"
        invented.write_late_finds(late, LATE_FINDS, LATE_FIRST)
        say.command(self.xa.agency, f"gateway import {late.name} --set {LIST}")
        self.xa.run("import", str(late), "--set", LIST)
        answers = wire.altered_then_repeated(self.xa.home, PASSPHRASE, partner=self.xb.agency, set_name=XA_LIST)
        _must(answers.refusal is not None, "XB took an altered message")
        refusals, taken = together(
            _bound(self.xb.run, "audit", "list", "--kind", "message_refused"),
            _bound(self._taken_in, self.xb, "push_received"),
        )
        _must(len(refusals) == 1, "the refusal does not stand in XB's log")
        say.say(
            f"XA adds {LATE_FINDS} late finds. On its way to XB one bit of the sealed page ({answers.size:,} bytes) is "
            "changed. XB answers:"
        )
        say.bad(f"{type(answers.refusal).__name__}: {answers.refusal}")
        _must(answers.receipt == answers.repeated, "the same message did not get the same receipt")
        _must(taken[XA_LIST][0] == self._delivered + LATE_FINDS, "a repeated message had a second effect")
        self._delivered += LATE_FINDS
        say.good(
            "The true page is taken. Sent once more it gets the same receipt, byte for byte, and changes nothing. "
            f"The refusal stands in XB's log as entry {refusals[0]['index']:,}."
        )

    def _follow(self) -> None:
        say = self.teller
        say.chapter("XC follows XA and XB by its schedule")
        together(self.xa.serve, self.xc.serve)
        say.command(self.xc.agency, "gateway sync status")
        began = time.monotonic()
        jobs = wait_for("XC's first sync with both partners", self._both_synced)
        seconds = time.monotonic() - began
        rows = [("partner", "changes behind", "last success")]
        for job in jobs:
            clock = time.strftime("%H:%M:%SZ", time.gmtime(job["last_success"]))
            rows.append((job["partner"], str(job["lag_changes"]), clock))
        say.table(rows)
        held, taken = together(_bound(self.xc.run, "set", "list"), _bound(self._taken_in, self.xc, "page_applied"))
        mirrors = {one["set"]: one for one in held}
        _must({XA_LIST, XB_LIST} <= set(mirrors), "XC does not hold both lists")
        for name in (XA_LIST, XB_LIST):
            _must(mirrors[name]["equality"] == "equal", f"XC's mirror of {name} differs from its hub")
        (from_xa, refused), (from_xb, _) = taken[XA_LIST], taken[XB_LIST]
        _must(from_xa == self._count(_open) + LATE_FINDS, "XC was sent other entries than XA's rules say")
        say.say(
            f"Nobody typed a command for it. After {seconds:.0f} s XC had been sent {from_xa:,} entries by XA and "
            f"{from_xb:,} by XB. Of XA's it refused {refused:,}, whose source is rated D."
        )
        say.good("Both ends compared digests of all that was delivered: XC's mirrors are equal to their hubs.")

    def _both_synced(self) -> list[Json] | None:
        jobs: list[Json] = self.xc.run("sync", "status")
        done = [job for job in jobs if job["last_success"] and job["lag_changes"] == 0]
        return jobs if len(done) == len(self.gateways) - 1 else None

    # What it is for

    def _look_up(self) -> None:
        say = self.teller
        say.chapter("Is this child already identified, and by whom?")
        number = self._shared_sample()
        asked = invented.sample(number)
        say.command(self.xb.agency, f"gateway look-up {asked.md5}")
        secret, late = invented.sample(invented.EMBARGOED_IN - 1), invented.sample(LATE_FIRST)
        at_xb, at_xc = together(
            _bound(self.xb.run, "look-up", asked.md5),
            _bound(self.xc.run, "look-up", asked.pdq, secret.sha256, asked.sha256, late.sha256),
        )
        rows = [("list", "originator", "victim status", "category", "series", "held from")]
        rows += [
            (hit["set"], hit["originator"], hit["victim_status"], hit["category"], hit["series"] or "-", hit["hub"])
            for hit in at_xb
        ]
        say.table(rows)
        status = {hit["set"]: hit["victim_status"] for hit in at_xb}
        _must(status == {XA_LIST: "identified", XB_LIST: "unidentified"}, "the look-up at XB is not as written")
        say.good("XB was still searching for a child whom XA has identified. Now it knows whom to ask.")
        found = {hit["query"]: hit["entry"] for hit in at_xc if hit["set"] == XA_LIST}
        _must(set(found) == {3, 4}, "XC finds something else than the last two of four digests")
        self._late_entry = found[4]
        say.say(
            "XC finds the same picture by its SHA-256 but not by its PDQ, which it was never sent. Of the series under "
            "embargo it finds nothing."
        )

    def _shared_sample(self) -> int:
        """A picture in both lists, whose PDQ is good enough to have been carried."""
        for number in range(0, self.entries // XB_SHARE, invented.SHARED_IN):
            if int(invented.xa_row(number)["pdq_quality"]) >= invented.GOOD_QUALITY:
                return number
        raise StageError("no picture is in both lists")

    def _withdraw(self) -> None:
        say = self.teller
        say.chapter("An entry was listed wrongly: XA takes it back")
        wrong = invented.sample(LATE_FIRST).sha256
        entry = self._late_entry
        say.command(self.xa.agency, f"gateway where {entry} --set {LIST}")
        where = self.xa.run("where", entry, "--set", LIST)
        holders = sorted(one["partner"] for one in where["holders"] if one["holds"])
        _must(holders == [self.xb.agency, self.xc.agency], "XA does not know who holds the entry")
        say.say(f"Held by {' and '.join(holders)}, as their own cursors tell.")
        reason = "another picture was meant"
        say.command(self.xa.agency, f"gateway set withdraw {LIST} {entry} --reason '{reason}'")
        self.xa.run("set", "withdraw", LIST, entry, "--reason", reason)
        self.xa.run("push", "--to", self.xb.agency, "--set", LIST)
        say.say("XA pushes the withdrawal to XB. XC learns of it at its next sync.")
        wait_for("the withdrawal at both partners", self._both_withdrew)
        left = together(*(_bound(one.run, "look-up", wrong) for one in (self.xb, self.xc)))
        _must(not any(left), "a withdrawn entry is still found")
        say.good("Both have answered that it took effect, and neither finds the entry any more.")

    def _both_withdrew(self) -> bool | None:
        answers = self.xa.run("withdrawal", "status")
        told = {one["holder"] for one in answers if one["state"] == "applied"}
        return True if {self.xb.agency, self.xc.agency} <= told else None

    def _audit(self) -> None:
        say = self.teller
        say.chapter("Every log is proved, and an altered copy is found out")
        say.command(self.xb.agency, f"gateway audit verify --outside {self.receipt.name}")
        export = self.folder / "log-of-XA"
        xa, xb, xc, _ = together(
            _bound(self.xa.run, "audit", "verify"),
            _bound(self.xb.run, "audit", "verify", "--outside", str(self.receipt)),
            _bound(self.xc.run, "audit", "verify"),
            _bound(self.xa.run, "audit", "export", str(export)),
        )
        rows: list[tuple[str, ...]] = [("log of", "leaves", "events", "blocks", "checkpoints", "compared with")]
        outside = ("-", "the receipt that XA keeps", "-")
        for one, report, kept in zip(self.gateways, (xa, xb, xc), outside, strict=True):
            _must(report["holds"], f"the log of {one.agency} does not hold")
            numbers = (f"{report[name]:,}" for name in ("size", "events", "blocks", "checkpoints"))
            rows.append((one.agency, *numbers, kept))
        say.table(rows, right=(1, 2, 3, 4))
        say.say("XA hands a copy of its log to an auditor. Somebody makes one event in it say that less was sent:")
        self._falsify(export / "leaves.jsonl")
        say.command(self.xa.agency, f"gateway audit verify --folder {export.name}")
        code, problem = self.xa.refused("audit", "verify", "--folder", str(export))
        _must(code == AUDIT_BROKEN, "an altered log was not found out")
        say.bad(f"{problem['detail']}: {problem['place']}")

    def _falsify(self, leaves: Path) -> None:
        """Write into an exported log that the first push carried one change."""
        lines = leaves.read_text(encoding="utf-8").splitlines(keepends=True)
        chosen = [at for at, line in enumerate(lines) if "page_sent" in line and self._message_id in line]
        _must(len(chosen) == 1, "the log does not tell of the push")
        before = lines[chosen[0]]
        lines[chosen[0]] = re.sub(r'\\"changes\\":[0-9]+', r'\\"changes\\":1', before)
        _must(lines[chosen[0]] != before, "the log does not tell how much was pushed")
        leaves.write_text("".join(lines), encoding="utf-8")

    # Counting

    def _count(self, belongs: Callable[[Json], bool]) -> int:
        """Entries of XA's list, as imported first, under the labels that belong."""
        embargoed = CLASSES["embargo"]
        return sum(
            int(one["entries"]) for one in self._labels if belongs(one) and (belongs is embargoed or not embargoed(one))
        )


def _open(label: Json) -> bool:
    """Under H0 or H1, and under no embargo."""
    return label["handling"] in {"H0", "H1"} and not label["restrictions"]


def _what_leaves(decisions: Sequence[Json]) -> str:
    """The field groups that a partner receives, in a few words."""
    missing = [GROUPS[one["action"]] for one in decisions if one["outcome"] != "allow"]
    if not missing:
        return "everything"
    if len(missing) == len(GROUPS):
        return "nothing"
    if len(missing) == len(GROUPS) - 1:
        return "only that it exists"
    return f"all but {' and '.join(missing)}"


def _rules_that_narrow(answers: Iterable[Sequence[Json]]) -> list[str]:
    """What forbids say, and the permits by which an entry is announced and no more; each rule once."""
    found: dict[str, None] = {}
    for decisions in answers:
        allowed = [one for one in decisions if one["outcome"] == "allow"]
        forbidden = [one for one in decisions if one["reason"] == "forbidden"]
        for one in [*forbidden, *(allowed if len(allowed) == 1 else [])]:
            found |= dict.fromkeys(_rules_of(one))
    return list(found)


def _rules_of(decision: Json) -> list[str]:
    """The rules behind a decision: sentence, id and law."""
    return [
        f"{says} [{rule}; {law}]"
        for rule, law, says in zip(decision["rules"], decision["law"], decision["says"], strict=True)
    ]


def _bound(deed: Callable[..., Json], *arguments: object) -> Callable[[], Json]:
    return lambda: deed(*arguments)


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _must(holds: object, otherwise: str) -> None:
    if not holds:
        raise StageError(otherwise)
