"""Texts in CSV files that people open in a spreadsheet."""

# A spreadsheet takes a cell that begins so for a formula (CWE-1236); it ignores spaces before it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def as_text(value: str) -> str:
    """The text with an apostrophe in front if a spreadsheet would take it for a formula."""
    return f"'{value}" if value.lstrip(" ").startswith(_FORMULA) else value
