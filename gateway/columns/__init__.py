"""Hash entries by the column: batches of rows, sealed-ready blocks, digest sums, the resident index, deltas.

The only floor that imports numpy and zstandard. Pure: no file, no clock, no network; salts and keys are passed in.

    rows       the registry of columns and `Rows`, an immutable batch
    encodings  one column as bytes
    drafts     entries on their way in, before a set has numbered them
    block      `hash-block 1`: header and one part per field group (contracts/hash-block-1.md)
    digest     keyed items and sums by (label, field group), and the state digest
    index      where an entry stands, and which entries carry a digest
    pdq        which rows carry a PDQ digest near one asked for
    delta      what a follower needs between its cursor and now
    sketch     which rows two sides do not share (contracts/sketch-1.md)
"""

from gateway.columns.block import (
    MAX_ROWS,
    Block,
    BlockHeader,
    cut,
    decode,
    encode_block,
    inspect,
    parse_block,
    resliced,
)
from gateway.columns.delta import Selection, select_delta
from gateway.columns.digest import Sum, items, state_digest, sum_items
from gateway.columns.index import Candidates, Located, SetIndex
from gateway.columns.pdq import MAX_RADIUS, Near, PdqIndex
from gateway.columns.rows import (
    GROUP_CODES,
    LOCAL_GROUP,
    Index,
    Ints,
    Mask,
    Rows,
    Text,
    concat,
    constant,
    counting,
    flagged,
    grouped,
)
from gateway.columns.sketch import (
    FIRST_SYMBOLS,
    MAX_SYMBOLS,
    USUAL_SYMBOLS,
    Peeled,
    Sketch,
    among,
    comparison_key,
    dump_sketch,
    parse_sketch,
    peel,
    short_ids,
    symbols_wanted,
)

__all__ = [
    "FIRST_SYMBOLS",
    "GROUP_CODES",
    "LOCAL_GROUP",
    "MAX_RADIUS",
    "MAX_ROWS",
    "MAX_SYMBOLS",
    "USUAL_SYMBOLS",
    "Block",
    "BlockHeader",
    "Candidates",
    "Index",
    "Ints",
    "Located",
    "Mask",
    "Near",
    "PdqIndex",
    "Peeled",
    "Rows",
    "Selection",
    "SetIndex",
    "Sketch",
    "Sum",
    "Text",
    "among",
    "comparison_key",
    "concat",
    "constant",
    "counting",
    "cut",
    "decode",
    "dump_sketch",
    "encode_block",
    "flagged",
    "grouped",
    "inspect",
    "items",
    "parse_block",
    "parse_sketch",
    "peel",
    "resliced",
    "select_delta",
    "short_ids",
    "state_digest",
    "sum_items",
    "symbols_wanted",
]
