"""Hash entries by the column: batches of rows, sealed-ready blocks, digest sums, the resident index, deltas.

The only floor that imports numpy and zstandard. Pure: no file, no clock, no network; salts and keys are passed in.

    rows       the registry of columns and `Rows`, an immutable batch
    encodings  one column as bytes
    block      `hash-block 1`: header and one part per field group (contracts/hash-block-1.md)
    digest     keyed items and sums by (label, field group), and the state digest
    index      where an entry stands, and which entries carry a digest
    delta      what a follower needs between its cursor and now
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

__all__ = [
    "GROUP_CODES",
    "LOCAL_GROUP",
    "MAX_ROWS",
    "Block",
    "BlockHeader",
    "Candidates",
    "Index",
    "Ints",
    "Located",
    "Mask",
    "Rows",
    "Selection",
    "SetIndex",
    "Sum",
    "Text",
    "concat",
    "constant",
    "counting",
    "cut",
    "decode",
    "encode_block",
    "flagged",
    "grouped",
    "inspect",
    "items",
    "parse_block",
    "resliced",
    "select_delta",
    "state_digest",
    "sum_items",
]
