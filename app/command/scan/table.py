"""The columns of the results."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any


def schema() -> Any:
    """The columns and their types, as pyarrow's `Schema`."""
    import pyarrow as pa

    box = [(name, pa.int32()) for name in ("x", "y", "width", "height")]
    numbers = [("area", pa.float32()), ("score", pa.float32())]
    region = pa.struct([("head", pa.string()), *box, *numbers])
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            ("bytes", pa.int64()),
            ("sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            pa.field("status", pa.string(), nullable=False),
            ("error_code", pa.string()),
            ("error_detail", pa.string()),
            ("ai_probability", pa.float64()),
            ("verdict", pa.string()),
            ("manipulated", pa.bool_()),
            ("not_judged", pa.string()),
            ("notes", pa.list_(pa.string())),
            ("regions", pa.list_(region)),
            ("model_name", pa.string()),
            ("model_version", pa.string()),
            ("seconds", pa.float32()),
        ]
    )


def encode(rows: Sequence[dict[str, Any]]) -> bytes:
    """Encode rows as a Parquet file; columns without a value are null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = BytesIO()
    table = pa.Table.from_pylist(list(rows), schema=schema())
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()
