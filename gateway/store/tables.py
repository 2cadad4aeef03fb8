"""The tables. Hash entries are never rows here: they live in sealed blocks (DESIGN.md section 5).

Every table is a SQLModel class; the store names its columns. Rows that one deed meets by the hundred (labels, blocks,
parts) are plain models beside their table: an instrumented object costs a hundred times a plain one.

Text columns hold codes and canonical JSON; columns named `sealed_…` hold AES-256-GCM bytes under the master data key;
times are Unix seconds (UTC).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, Table
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlmodel import Field, SQLModel

# 64 bits. SQLite's INTEGER has them, and by that name alone a primary key numbers its rows by itself.
WIDE = BigInteger().with_variant(Integer(), "sqlite")


class Meta(SQLModel, table=True):
    """Single values of this database: agency, schema word, writer generation."""

    key: str = Field(primary_key=True)
    value: str


class HashSet(SQLModel, table=True):
    """A hash set: our own (`hub` is empty), the mirror of one that `hub` serves or pushes to us, or an onward copy.

    `epoch`, `seq` and `next_entry` count changes of an own set; a mirror's cursor is (`epoch`, `view`, `seq`). An
    onward copy is kept as an own set is, under the name of the mirror whose id is `relays` (0 for the others).
    """

    __tablename__ = "hash_set"
    __table_args__ = (Index("ix_hash_set_name", "name", "relays", unique=True),)
    id: int | None = Field(default=None, primary_key=True)
    name: str
    hub: str = ""
    purpose: str = ""
    defaults: str = "{}"
    epoch: int = Field(default=1, sa_type=BigInteger)
    seq: int = Field(default=0, sa_type=BigInteger)
    next_entry: int = Field(default=1, sa_type=BigInteger)
    view: str = ""
    sealed_digest_key: bytes = b""
    head: str = ""  # mirror: the last verified feed head (canonical JSON), for rollback and equality
    equality: str = "unknown"  # mirror: equal | different | unknown, after the last sync
    created: int = Field(default=0, sa_type=BigInteger)
    horizon: int = Field(default=0, sa_type=BigInteger)  # own: followers from before this seq get no delta any more
    revision: int = Field(default=0, sa_type=BigInteger)  # counts the times that its sums were written
    relays: int = Field(default=0, sa_type=BigInteger)


class OnwardSource(SQLModel, table=True):
    """Which messages of the originator stand behind the changes `first_seq` to `last_seq` of an onward copy.

    `sources`: digests of signed manifests in hex, separated by spaces.
    """

    __tablename__ = "onward_source"
    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    last_seq: int = Field(primary_key=True, sa_type=BigInteger)
    first_seq: int = Field(sa_type=BigInteger)
    sources: str


class LabelRow(SQLModel):
    """A label of a set under its number. In a mirror `groups` and `obligations` are what its hub shows and asks."""

    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    number: int = Field(primary_key=True)
    digest: bytes
    salt: bytes = b""
    attributes: str
    groups: str = ""
    obligations: str = ""


class LabelTable(LabelRow, table=True):
    """Where labels are kept."""

    __tablename__ = "label"


class OfferedLabel(SQLModel, table=True):
    """A label under which a partner's stock client offered entries for a set of ours, as policy judged it.

    What is taken stands under another one, in our name and under embargo.
    """

    __tablename__ = "offered_label"
    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    number: int = Field(primary_key=True)
    digest: bytes
    salt: bytes
    attributes: str


class BlockRow(SQLModel):
    """One column block. `id`, the order of arrival, decides what is current. `kind`: changes, removals, refused,
    barred, expired, history. `arrived`: when the oldest of its rows came here."""

    id: int | None = Field(default=None, primary_key=True, sa_type=WIDE)
    set_id: int = Field(foreign_key="hash_set.id", index=True)
    kind: str
    label: int = Field(sa_type=BigInteger)
    epoch: int = Field(sa_type=BigInteger)
    first_seq: int = Field(index=True, sa_type=BigInteger)
    last_seq: int = Field(index=True, sa_type=BigInteger)
    count: int = Field(sa_type=BigInteger)
    digest: bytes
    header: bytes
    wrapped_key: bytes
    leaf: int = Field(default=-1, sa_type=BigInteger)
    parts: str = ""  # numbers of the parts that are stored, so that none can vanish unseen; "" before revision 0002
    arrived: int = Field(default=0, sa_type=BigInteger)


class BlockTable(BlockRow, table=True):
    """Where the rows of blocks are kept."""

    __tablename__ = "block"
    __table_args__ = (
        Index("ix_block_set_last_seq", "set_id", "last_seq"),
        Index("ix_block_set_label_last_seq", "set_id", "label", "last_seq"),
    )


class BlockPart(SQLModel):
    """One sealed part of a block: a part that policy withholds is never even read."""

    block_id: int = Field(primary_key=True, foreign_key="block.id", sa_type=WIDE)
    part: int = Field(primary_key=True)
    sealed: bytes


class BlockPartTable(BlockPart, table=True):
    """Where the parts of blocks are kept."""

    __tablename__ = "block_part"


class DroppedBlock(SQLModel, table=True):
    """Blocks that were dropped, so that every node's resident index can follow."""

    __tablename__ = "dropped_block"
    id: int | None = Field(default=None, primary_key=True)
    set_id: int = Field(index=True)
    block_id: int = Field(index=True, sa_type=BigInteger)


class NeverAgainTable(SQLModel, table=True):
    """The never-again list, which only grows (`store.neveragain.NeverAgainRow`)."""

    __tablename__ = "never_again"
    id: int = Field(primary_key=True, sa_type=BigInteger)
    mark: bytes
    kind: str
    scope: str
    listing: int = Field(sa_type=BigInteger)
    at: int = Field(sa_type=BigInteger)
    leaf: int = Field(sa_type=BigInteger)
    mac: bytes


class LegalHold(SQLModel, table=True):
    """Entries that must be kept for a court. `until`: the last day. `gone`: how many its set holds no more."""

    __tablename__ = "legal_hold"
    id: str = Field(primary_key=True)
    set_id: int = Field(foreign_key="hash_set.id")
    reference: str
    reason: str
    until: str
    created: int = Field(sa_type=BigInteger)
    entries: int = Field(default=0, sa_type=BigInteger)
    gone: int = Field(default=0, sa_type=BigInteger)


class HeldEntry(SQLModel, table=True):
    """A sealed copy of an entry on hold."""

    __tablename__ = "held_entry"
    hold: str = Field(primary_key=True, foreign_key="legal_hold.id")
    entry_id: int = Field(primary_key=True, sa_type=BigInteger)
    sealed: bytes


class SignedPage(SQLModel, table=True):
    """What a hub signed of a page that its mirror took whole; the page's blocks are those from `first_block` on."""

    __tablename__ = "signed_page"
    id: int | None = Field(default=None, primary_key=True, sa_type=WIDE)
    set_id: int = Field(foreign_key="hash_set.id", index=True)
    epoch: int = Field(sa_type=BigInteger)
    until_seq: int = Field(sa_type=BigInteger)
    first_block: int = Field(index=True, sa_type=BigInteger)
    last_block: int = Field(sa_type=BigInteger)
    withdrawals: int = Field(sa_type=BigInteger)
    sealed: bytes
    at: int = Field(sa_type=BigInteger)
    sources: str = ""  # digests of the originator's manifests that it stands for, separated by spaces


class LabelSum(SQLModel, table=True):
    """Linear state digest of one (set, label, field group): count, low, high as 24 little-endian bytes."""

    __tablename__ = "label_sum"
    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    label: int = Field(primary_key=True)
    part: int = Field(primary_key=True)
    value: bytes


class ViewRow(SQLModel, table=True):
    """A view that a partner was given, under its digest, so that a later one can say the difference."""

    __tablename__ = "view"
    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    partner: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    content: str


class Follower(SQLModel, table=True):
    """How far a partner is known to hold a set of ours (its own cursor, as it last named it).

    `since`: the set's seq when the partner began to hold anything; all that it holds was current then, or came later.
    """

    __tablename__ = "follower"
    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    partner: str = Field(primary_key=True)
    epoch: int = Field(sa_type=BigInteger)
    view: str
    seq: int = Field(sa_type=BigInteger)
    at: int = Field(sa_type=BigInteger)
    since: int = Field(default=0, sa_type=BigInteger)


class Acknowledgement(SQLModel, table=True):
    """A page that left under a duty to acknowledge it, and has not been acknowledged. `due`, `sent`: Unix seconds."""

    __tablename__ = "acknowledgement"
    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    partner: str = Field(primary_key=True)
    epoch: int = Field(primary_key=True, sa_type=BigInteger)
    until_seq: int = Field(primary_key=True, sa_type=BigInteger)
    due: int = Field(sa_type=BigInteger)
    sent: int = Field(sa_type=BigInteger)


class ShownSet(SQLModel, table=True):
    """What the stock clients of a partner were shown of an own set at one surface (`exchange.spans`).

    `seq`: where the set stood when they last asked; `judged`: the highest label that was judged then; `view`: the
    digest of what policy let them see; `spans`: canonical JSON, since when each label was shown and until when.
    """

    __tablename__ = "shown_set"
    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    partner: str = Field(primary_key=True)
    surface: str = Field(primary_key=True)
    seq: int = Field(sa_type=BigInteger)
    judged: int = Field(sa_type=BigInteger)
    view: str
    spans: str


class OpinionRow(SQLModel, table=True):
    """What a partner thinks of one digest of an entry of ours, its latest word.

    No digest is kept here: the entry has it, so that an opinion never outlives what was erased. `version`: of the entry
    when the word was given; `verdict`: affirmative or negative; `reasons`: their GUIDs, separated by spaces.
    """

    __tablename__ = "opinion"
    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    entry_id: int = Field(primary_key=True, sa_type=WIDE)
    algorithm: str = Field(primary_key=True)
    partner: str = Field(primary_key=True)
    verdict: str
    reasons: str
    version: int = Field(sa_type=BigInteger)
    at: int = Field(sa_type=BigInteger)


class AgencyOpinion(SQLModel, table=True):
    """The newest word of an agency, our own or a partner's, on an entry of an own set or a mirror (`gateway.opinions`).

    A word that was taken back stays, so that none from before it comes back. `sealed_text`: what our people noted
    beside a word of ours; it goes nowhere.
    """

    __tablename__ = "agency_opinion"
    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    entry_id: int = Field(primary_key=True, sa_type=WIDE)
    agency: str = Field(primary_key=True)
    number: int = Field(sa_type=BigInteger)
    verdict: str
    reason: str
    version: int = Field(sa_type=BigInteger)
    at: int = Field(sa_type=BigInteger)
    sealed_text: bytes = b""


class OpinionCount(SQLModel, table=True):
    """What the hub of a mirror has heard of an entry: how many agencies confirm it, how many dispute it."""

    __tablename__ = "opinion_count"
    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    entry_id: int = Field(primary_key=True, sa_type=WIDE)
    number: int = Field(sa_type=BigInteger)
    confirmed: int
    disputed: int


class OpinionAsker(SQLModel, table=True):
    """A partner that asked what is thought of a set's entries, and is told of changes since. `told`: when in full."""

    __tablename__ = "opinion_asker"
    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    partner: str = Field(primary_key=True)
    told: int = Field(sa_type=BigInteger)


class AllowList(SQLModel, table=True):
    """A list of known-good digests. `state`: loading, in_force, removed. `head`: chains the MACs of its parts."""

    __tablename__ = "allow_list"
    id: int = Field(primary_key=True)
    name: str
    state: str
    digests: int = Field(sa_type=BigInteger)
    parts: int
    added: int = Field(sa_type=BigInteger)
    head: bytes
    mac: bytes


class AllowListPart(SQLModel, table=True):
    """Marks of known-good digests, 16 octets each, ascending."""

    __tablename__ = "allow_list_part"
    list_id: int = Field(primary_key=True, foreign_key="allow_list.id")
    number: int = Field(primary_key=True)
    marks: bytes


class CategoryTable(SQLModel, table=True):
    """A table that says what another scheme's categories are in ours, as two administrators signed it."""

    __tablename__ = "category_table"
    digest: str = Field(primary_key=True)
    scheme: str = Field(index=True)
    version: int
    content: str
    activated: int = Field(sa_type=BigInteger)
    proposal: str
    mac: bytes


class LargeValueRow(SQLModel, table=True):
    """A large value of an own set under its keyed name. `octets`: its length; `at`: when it came."""

    __tablename__ = "large_value"
    name: str = Field(primary_key=True)
    set_id: int = Field(foreign_key="hash_set.id", index=True)
    octets: int = Field(sa_type=BigInteger)
    wrapped_key: bytes
    at: int = Field(sa_type=BigInteger)


class LargePiece(SQLModel, table=True):
    """One sealed piece of a large value, numbered from 0."""

    __tablename__ = "large_piece"
    name: str = Field(primary_key=True, foreign_key="large_value.name")
    number: int = Field(primary_key=True)
    sealed: bytes


class LargeUse(SQLModel, table=True):
    """An entry that has a large value; with `hold`, the legal hold that keeps the value of this entry."""

    __tablename__ = "large_use"
    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    entry_id: int = Field(primary_key=True, sa_type=WIDE)
    hold: str = Field(primary_key=True)
    name: str = Field(foreign_key="large_value.name", index=True)


class Withdrawal(SQLModel, table=True):
    """Entries that were taken back: by us (`hub` is empty), or by whom we follow, who told us (`hub`).

    `kind`: withdrawal or recall. `from_seq` and `until_seq` count as the hub counts; `view`: of a recall the view that
    it ends. `removed` entries went here; `answered`: when we told the hub, 0 before. Times are Unix seconds.
    """

    __tablename__ = "withdrawal"
    id: str = Field(primary_key=True)
    kind: str
    set_name: str = Field(index=True)
    origin: str
    hub: str = ""
    epoch: int = Field(sa_type=BigInteger)
    from_seq: int = Field(sa_type=BigInteger)
    until_seq: int = Field(sa_type=BigInteger)
    view: str = ""
    entries: int = Field(sa_type=BigInteger)
    reason: str
    reference: str = ""
    created: int = Field(sa_type=BigInteger)
    due: int = Field(sa_type=BigInteger)
    removed: int = Field(default=0, sa_type=BigInteger)
    answered: int = Field(default=0, sa_type=BigInteger)
    because: str = ""  # why we refuse, "" where we do not


class WithdrawalHolder(SQLModel, table=True):
    """Somebody who may hold what was taken back. `via`: through whom, from us on, separated by spaces; "" directly.

    `state`: outstanding, applied, refused. `mail`: the number of the signed message with a direct holder's answer.
    """

    __tablename__ = "withdrawal_holder"
    withdrawal: str = Field(primary_key=True, foreign_key="withdrawal.id")
    holder: str = Field(primary_key=True)
    via: str = Field(primary_key=True)
    entries: int = Field(sa_type=BigInteger)
    state: str
    because: str = ""
    answered: int = Field(default=0, sa_type=BigInteger)
    mail: int = Field(default=0, sa_type=BigInteger)
    reminded: int = Field(default=0, sa_type=BigInteger)


class StatusLine(SQLModel, table=True):
    """The newest version of one assertion about a subject: ours, or a partner's (`gateway.statuses`).

    `sealed`: all of it, and what belongs to it; the columns beside it are copies to search by. `received`: when it came
    here; `met`: how many entries of ours it met then; `seen`: when a person looked at it, 0 before.
    """

    __tablename__ = "status_line"
    agency: str = Field(primary_key=True)
    number: str = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    status: str = Field(index=True)
    at: int = Field(sa_type=BigInteger)
    sealed: bytes
    received: int = Field(sa_type=BigInteger)
    met: int = Field(default=0, sa_type=BigInteger)
    seen: int = Field(default=0, sa_type=BigInteger)


class StatusMark(SQLModel):
    """What an assertion speaks of: a keyed digest of a digest, a series name, an entry or a victim. They only grow."""

    agency: str = Field(primary_key=True)
    number: str = Field(primary_key=True)
    mark: bytes = Field(primary_key=True)
    kind: str


class StatusMarkTable(StatusMark, table=True):
    """Where marks are kept."""

    __tablename__ = "status_mark"
    __table_args__ = (Index("ix_status_mark_mark", "mark"),)


class StatusTold(SQLModel, table=True):
    """A partner that was told of an assertion of ours.

    `version`, `status`: what it was told last; `mail`: the number of that message. `due`: until when it has to answer
    that it searches again, 0 where nothing was taken back; `answered`: when it did.
    """

    __tablename__ = "status_told"
    number: str = Field(primary_key=True)
    partner: str = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    status: str
    mail: int = Field(sa_type=BigInteger)
    at: int = Field(sa_type=BigInteger)
    due: int = Field(default=0, sa_type=BigInteger)
    reminded: int = Field(default=0, sa_type=BigInteger)
    answered: int = Field(default=0, sa_type=BigInteger)


class ClaimRow(SQLModel, table=True):
    """A claim conflict: ours and a partner's assertion, and what both sides have said.

    `number`, `theirs`: the two assertions, "" where only the partner's word is known yet. `sealed`: what we let the
    partner have when both agree; `sealed_theirs`: what it let us have.
    """

    __tablename__ = "claim"
    id: str = Field(primary_key=True)
    partner: str = Field(primary_key=True)
    number: str = ""
    theirs: str = ""
    at: int = Field(default=0, sa_type=BigInteger)
    version: int = Field(default=0, sa_type=BigInteger)
    word: str = "open"
    their_version: int = Field(default=0, sa_type=BigInteger)
    their_word: str = "open"
    given: int = Field(default=0, sa_type=BigInteger)  # the version of our word with which our contact went
    sealed: bytes = b""
    sealed_theirs: bytes = b""


class SeriesMerge(SQLModel, table=True):
    """A proposal that two series are one. `origin`: whose; `merged`: what the origin says now; `state`: what we do.

    `sealed`: both names and the reason. `told`: the partners that know of it, separated by spaces.
    """

    __tablename__ = "series_merge"
    id: str = Field(primary_key=True)
    origin: str
    version: int = Field(sa_type=BigInteger)
    merged: bool
    state: str
    sealed: bytes
    at: int = Field(sa_type=BigInteger)
    told: str = ""


class CertificateRow(SQLModel, table=True):
    """A certificate that we issued, with its revocation; both as they were handed out, sealed at rest."""

    __tablename__ = "certificate"
    id: str = Field(primary_key=True)
    number: str = Field(index=True)
    issued: int = Field(sa_type=BigInteger)
    revoked: int = Field(default=0, sa_type=BigInteger)
    sealed: bytes
    sealed_revocation: bytes = b""


class MailEvidence(SQLModel, table=True):
    """What a partner signed when it sent mailbox messages whose proof is kept: manifest and payload, sealed at rest."""

    __tablename__ = "mail_evidence"
    partner: str = Field(primary_key=True)
    last: int = Field(primary_key=True, sa_type=WIDE)
    first: int = Field(sa_type=BigInteger)
    sealed: bytes


class FeedHeadRow(SQLModel, table=True):
    """The feed head last issued to a partner: its content and the sealed bytes that a poll answers with."""

    __tablename__ = "feed_head"
    set_id: int = Field(primary_key=True, foreign_key="hash_set.id")
    partner: str = Field(primary_key=True)
    etag: str
    content: str
    sealed: bytes
    issued: int = Field(sa_type=BigInteger)
    expires: int = Field(sa_type=BigInteger)


class PartnerRow(SQLModel, table=True):
    """An enrolled partner and its identity card. `state`: active, suspended, removed, revoked."""

    __tablename__ = "partner"
    agency: str = Field(primary_key=True)
    jurisdiction: str
    state: str
    card: str
    added: int = Field(sa_type=BigInteger)
    contacted: int = Field(default=0, sa_type=BigInteger)
    test: bool = False  # only sets of invented data move, until two administrators lift it
    mac: bytes = b""  # under a key of the keystore: whoever writes the database enrols nobody


class AdministratorRow(SQLModel, table=True):
    """An administrator's public signing keys."""

    __tablename__ = "administrator"
    name: str = Field(primary_key=True)
    keys: str
    added: int = Field(sa_type=BigInteger)
    proposal: str = ""  # the executed proposal that added them; "" for a founder
    mac: bytes = b""


class ProposalRow(SQLModel, table=True):
    """A guarded act that waits for signatures. `state`: open, done, refused, expired."""

    __tablename__ = "proposal"
    id: str = Field(primary_key=True)
    act: str
    statement: str
    state: str
    created: int = Field(sa_type=BigInteger)
    expires: int = Field(sa_type=BigInteger)
    number: int = Field(default=0, sa_type=BigInteger)  # in the order in which they were made; the store gives it


class ApprovalRow(SQLModel, table=True):
    """One administrator's signature over a proposal."""

    __tablename__ = "approval"
    proposal: str = Field(primary_key=True, foreign_key="proposal.id")
    administrator: str = Field(primary_key=True)
    signature: bytes
    at: int = Field(sa_type=BigInteger)


class PauseRow(SQLModel, table=True):
    """What is paused: "*" for everything, or one partner."""

    __tablename__ = "pause"
    scope: str = Field(primary_key=True)
    by: str
    at: int = Field(sa_type=BigInteger)


class PolicyText(SQLModel, table=True):
    """A policy that is or was in force, under the digest of its texts (canonical JSON: relative path to content)."""

    __tablename__ = "policy_text"
    digest: str = Field(primary_key=True)
    texts: str
    kept: int = Field(sa_type=BigInteger)


class DecisionRow(SQLModel):
    """The newest decision receipt on a label of a set: its leaf, and a mark (a MAC) of what it says."""

    set_id: int = Field(primary_key=True)
    partner: str = Field(primary_key=True)
    surface: str = Field(primary_key=True)
    action: str = Field(primary_key=True)
    label: int = Field(primary_key=True)
    mark: bytes
    leaf: int = Field(sa_type=BigInteger)


class DecisionTable(DecisionRow, table=True):
    """Where it is kept which decisions are on record."""

    __tablename__ = "decision"


class InboxRow(SQLModel, table=True):
    """Every message ever accepted, with the receipt that a repetition gets again."""

    __tablename__ = "inbox"
    sender: str = Field(primary_key=True)
    message_id: str = Field(primary_key=True)
    manifest_digest: str
    receipt: bytes
    at: int = Field(sa_type=BigInteger)


class OutboxRow(SQLModel, table=True):
    """A message on its way. `state`: waiting, received, dead. The sealed bytes go once the receipt is here."""

    __tablename__ = "outbox"
    message_id: str = Field(primary_key=True)
    partner: str = Field(index=True)
    payload_type: str
    subject: str
    manifest_digest: str
    sealed: bytes
    state: str
    receipt: bytes = b""
    attempts: int = Field(default=0, sa_type=BigInteger)
    error: str = ""
    created: int = Field(default=0, sa_type=BigInteger)
    until_seq: int = Field(default=0, sa_type=BigInteger)


class MailOut(SQLModel, table=True):
    """Mailbox towards a partner: plain until sent (the column is sealed at rest), numbered without gaps."""

    __tablename__ = "mail_out"
    partner: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=WIDE)
    kind: str
    sealed_body: bytes
    message_id: str
    created: int = Field(sa_type=BigInteger)
    delivered: int = Field(default=0, sa_type=BigInteger)
    receipt: bytes = b""


class MailIn(SQLModel, table=True):
    """Mailbox from a partner, known by the sender's number and digest."""

    __tablename__ = "mail_in"
    partner: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=WIDE)
    kind: str
    digest: str
    sealed_body: bytes
    received: int = Field(sa_type=BigInteger)


class AccessToken(SQLModel, table=True):
    """An opaque access token, stored hashed, bound to the caller's DPoP key."""

    __tablename__ = "access_token"
    digest: bytes = Field(primary_key=True)
    partner: str = Field(index=True)
    thumbprint: str
    expires: int = Field(index=True, sa_type=BigInteger)
    scope: str = ""  # space-separated, sorted
    mac: bytes = b""  # under a key of the keystore: whoever writes the database lets nobody in


class ReplayRow(SQLModel, table=True):
    """A `jti` that was seen, until it could no longer be accepted anyway."""

    __tablename__ = "replay"
    digest: bytes = Field(primary_key=True)
    expires: int = Field(index=True, sa_type=BigInteger)


class OwnKey(SQLModel, table=True):
    """One of our own keys through its life: never the private half, which is in the keystore alone.

    `purpose`: signing, token, decryption. `state`: the words of `keylife.KeyState`. `number` is a signing key's place
    in the succession; of the others the number of the first identity card that names it, 0 before there is one.
    """

    __tablename__ = "own_key"
    key_id: str = Field(primary_key=True)
    purpose: str = Field(index=True)
    number: int = 0
    state: str
    public: str
    created: int = Field(sa_type=BigInteger)
    changed: int = Field(sa_type=BigInteger)
    expires: int = Field(sa_type=BigInteger)
    reason: str = ""
    compromised_since: int = Field(default=0, sa_type=BigInteger)


class PartnerKey(SQLModel, table=True):
    """A signing key pair of a partner: from its enrolled card, or walked to along its successions.

    `state`: active, deactivated (a successor is known; messages on their way still count until `until`), compromised.
    """

    __tablename__ = "partner_key"
    agency: str = Field(primary_key=True)
    key_set_id: str = Field(primary_key=True)
    number: int = Field(sa_type=WIDE)
    keys: str
    state: str
    accepted: int = Field(sa_type=BigInteger)
    until: int = Field(default=0, sa_type=BigInteger)  # 0: no end
    compromised_since: int = Field(default=0, sa_type=BigInteger)
    mac: bytes = b""


class PartnerRestore(SQLModel, table=True):
    """A restore statement of a partner that was taken. `digest`: its SHA-256; `number`: of the log that it leads to."""

    __tablename__ = "partner_restore"
    agency: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    number: int = Field(sa_type=BigInteger)
    statement: bytes
    accepted: int = Field(sa_type=BigInteger)
    mac: bytes = b""


class OwnCard(SQLModel, table=True):
    """Every identity card that we handed out, as signed, by its number."""

    __tablename__ = "own_card"
    number: int = Field(primary_key=True)
    digest: str = Field(index=True)
    card: str
    created: int = Field(sa_type=BigInteger)


class KeyStatement(SQLModel, table=True):
    """What we say of our signing keys and our log, in order: successions, revocations, restores, as signed."""

    __tablename__ = "key_statement"
    id: int | None = Field(default=None, primary_key=True)
    kind: str
    number: int
    statement: bytes
    created: int = Field(sa_type=BigInteger)


class KeySeen(SQLModel, table=True):
    """Which of our cards a partner last said that it holds: the who-has-seen-it matrix follows from it."""

    __tablename__ = "key_seen"
    partner: str = Field(primary_key=True)
    number: int = Field(sa_type=WIDE)
    signing_number: int = Field(sa_type=WIDE)
    revocations: int = Field(sa_type=WIDE)
    at: int = Field(sa_type=BigInteger)


class WitnessedLog(SQLModel, table=True):
    """The largest checkpoint of a partner's log that we verified to extend the one before, and cosigned.

    `note` is "" while only `claims` are known: signed heads from receipts and from other partners, as a JSON list, that
    the next checkpoint shown must extend as well. `since`: when the first checkpoint of this history was taken.
    """

    __tablename__ = "witnessed_log"
    partner: str = Field(primary_key=True)
    origin: str
    size: int = Field(sa_type=BigInteger)
    note: str
    at: int = Field(sa_type=BigInteger)
    since: int = Field(default=0, sa_type=BigInteger)
    claims: str = "[]"
    cosigned: int = Field(default=0, sa_type=BigInteger)  # the size of the checkpoint whose cosignature it has


class CosignatureRow(SQLModel, table=True):
    """A partner's cosignature under one of our checkpoints: the line as it stands in the note."""

    __tablename__ = "cosignature"
    partner: str = Field(primary_key=True)
    size: int = Field(primary_key=True, sa_type=BigInteger)
    line: str
    at: int = Field(sa_type=BigInteger)


class AlarmRow(SQLModel, table=True):
    """Something that an administrator must know. One row for each (kind, subject) while it is open.

    `told`: when the alarm hook took it, 0 while it has not. `evidence`: what proves it, for people to keep elsewhere.
    """

    __tablename__ = "alarm"
    id: int | None = Field(default=None, primary_key=True)
    kind: str = Field(index=True)
    subject: str
    level: int = 0  # what it counts down or up (days left), so that a nearer day is told again
    detail: str
    evidence: str = ""
    raised: int = Field(sa_type=BigInteger)
    told: int = Field(default=0, sa_type=BigInteger)
    closed: int = Field(default=0, sa_type=BigInteger)
    closed_by: str = ""


class SurfaceRow(SQLModel, table=True):
    """A door for stock clients that administrators have opened for a partner."""

    __tablename__ = "surface"
    partner: str = Field(primary_key=True)
    surface: str = Field(primary_key=True)
    opened: int = Field(sa_type=BigInteger)
    proposal: str = ""


class ClientSecret(SQLModel, table=True):
    """A secret by which a partner's stock client calls one surface; stored hashed."""

    __tablename__ = "client_secret"
    id: str = Field(primary_key=True)
    partner: str = Field(index=True)
    surface: str
    digest: bytes
    created: int = Field(sa_type=BigInteger)
    expires: int = Field(sa_type=BigInteger)
    used: int = Field(default=0, sa_type=BigInteger)


class TaxiiStatus(SQLModel, table=True):
    """What became of the objects that a TAXII client sent: the answer that it got, to be asked for again for a day."""

    __tablename__ = "taxii_status"
    id: str = Field(primary_key=True)
    partner: str = Field(index=True)
    at: int = Field(sa_type=BigInteger)
    content: str


class ScheduleRow(SQLModel, table=True):
    """One job of the schedule: a lease with a fencing number says who runs it now."""

    __tablename__ = "schedule"
    job: str = Field(primary_key=True)
    partner: str
    interval_seconds: int = Field(sa_type=BigInteger)
    next_run: int = Field(sa_type=BigInteger)
    lease_owner: str = ""
    lease_fence: int = Field(default=0, sa_type=BigInteger)
    lease_until: int = Field(default=0, sa_type=BigInteger)
    failures: int = Field(default=0, sa_type=BigInteger)
    last_start: int = Field(default=0, sa_type=BigInteger)
    last_success: int = Field(default=0, sa_type=BigInteger)
    last_error: str = ""
    lag_changes: int = Field(default=-1, sa_type=BigInteger)


class AuditLeaf(SQLModel, table=True):
    """One leaf of the audit log. `event` and `salt` can be erased by law; `entry` is what the tree hashes."""

    __tablename__ = "audit_leaf"
    idx: int = Field(primary_key=True, sa_type=BigInteger)
    entry: bytes
    event: str | None = None
    salt: bytes | None = None


class LogTail(SQLModel, table=True):
    """One row. Where several may write at once, whoever writes locks it first: the next leaf is then its alone."""

    __tablename__ = "log_tail"
    id: int = Field(primary_key=True)


class AuditNode(SQLModel, table=True):
    """Hashes of complete subtrees; level 0 repeats the leaf hashes."""

    __tablename__ = "audit_node"
    level: int = Field(primary_key=True)
    idx: int = Field(primary_key=True, sa_type=BigInteger)
    hash: bytes


class AuditCheckpoint(SQLModel, table=True):
    """The signed checkpoint of every transaction that appended leaves."""

    __tablename__ = "audit_checkpoint"
    size: int = Field(primary_key=True, sa_type=WIDE)
    note: str


class CaseRow(SQLModel, table=True):
    """A case, in its newest version: our own, or one that `source` referred to us. Decision 0020.

    `id` is the only name of a case outside the sealed report. `mark` is the keyed mark of originator and reference; of
    an erased case it is the id. `groups`: the field groups that the report holds; `obligations`: the duties under which
    it came. `keep_until`: when it must go at the latest, 0 for no such day.
    """

    __tablename__ = "case_record"
    id: str = Field(primary_key=True)
    mark: bytes = Field(unique=True)
    originator: str
    source: str = ""
    state: str
    version: int = Field(sa_type=BigInteger)
    urgency: str
    victim_status: str
    missing: str = ""
    groups: str
    obligations: str = ""
    review_on: str = ""
    keep_until: int = Field(default=0, sa_type=BigInteger)
    arrived: int = Field(sa_type=BigInteger)
    changed: int = Field(sa_type=BigInteger)
    sealed_report: bytes = b""


class CaseThread(SQLModel, table=True):
    """What two agencies say to each other about one case: the `side` that referred it is ours or theirs.

    `id` was given by who referred it. `version` and `digest` are of the report that went last; `due`: by when it must
    have been read; `read`, `answered`: when that was, 0 until then.
    """

    __tablename__ = "case_thread"
    partner: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    case_id: str = Field(index=True)
    side: str
    state: str
    purpose: str
    version: int = Field(sa_type=BigInteger)
    digest: str
    groups: str
    obligations: str = ""
    created: int = Field(sa_type=BigInteger)
    due: int = Field(sa_type=BigInteger)
    read: int = Field(default=0, sa_type=BigInteger)
    answered: int = Field(default=0, sa_type=BigInteger)


class CaseMessage(SQLModel, table=True):
    """One message of a thread: where it stands in the mailbox, and the leaf of our log that tells of it.

    `way` is "in" or "out"; `digest`: of the report in it, empty where there is none; `blank`: its words are erased.
    """

    __tablename__ = "case_message"
    partner: str = Field(primary_key=True)
    way: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger)
    thread: str
    case_id: str = Field(index=True)
    kind: str
    digest: str = ""
    at: int = Field(sa_type=BigInteger)
    leaf: int = Field(sa_type=BigInteger)
    blank: bool = False


class CaseLabel(SQLModel, table=True):
    """A label under which policy judged a case, by its digest: so that each decision can be made again."""

    __tablename__ = "case_label"
    digest: str = Field(primary_key=True)
    attributes: str


class CaseDraft(SQLModel, table=True):
    """Bytes that wait for administrators, or that these have approved: exactly what will go, under its digest.

    `what` is "referral" or "alert"; `to` the partner, or the form; `proposal` what was signed, empty until then.
    """

    __tablename__ = "case_draft"
    digest: str = Field(primary_key=True)
    case_id: str = Field(index=True)
    what: str
    to: str
    created: int = Field(sa_type=BigInteger)
    proposal: str = ""
    sealed: bytes


class LookUpUse(SQLModel, table=True):
    """What a partner has asked about in look-ups: digests in a day (days since 1970), questions in a minute.

    `usual`: digests of a day, over the days before.
    """

    __tablename__ = "look_up_use"
    partner: str = Field(primary_key=True)
    day: int = Field(default=0, sa_type=BigInteger)
    digests: int = Field(default=0, sa_type=BigInteger)
    minute: int = Field(default=0, sa_type=BigInteger)
    batches: int = Field(default=0, sa_type=BigInteger)
    usual: int = Field(default=0, sa_type=BigInteger)


def columns(model: type[SQLModel]) -> ReadOnlyColumnCollection[str, Column[Any]]:
    """The columns of a table, as SQL sees them: to the type checker a model's attributes are plain values."""
    return table(model).columns


def table(model: type[SQLModel]) -> Table:
    """The table itself: a statement over it skips the ORM, which knows no shorter way for many rows."""
    found: Table = model.__table__  # type: ignore[attr-defined]  # SQLModel makes it; its type does not say so
    return found
