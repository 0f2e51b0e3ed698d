"""The notice about the model, in responses and documentation."""

from __future__ import annotations

from app.http import examples
from app.http.notice import notice


def test_notice_of_each_model() -> None:
    measured = examples.MODEL.measured
    found = notice(trained=True, measured=measured)
    assert "of 100 AI-generated pictures it finds 60 while calling 5 of 100" in found
    assert "1000 photographs" in found
    unmeasured = notice(trained=True, measured=None)
    assert "not measured" in unmeasured
    assert "untrained" in notice(trained=False, measured=measured)
    assert "untrained" not in found + unmeasured
