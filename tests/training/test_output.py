from __future__ import annotations

import json
import math

from training.output import to_json


def test_nan_and_infinity_become_null() -> None:
    value = {"loss": math.nan, "rates": [0.25, math.inf, None], "name": "é"}
    for indent in (None, 2):
        text = to_json(value, indent=indent)
        assert text.endswith("\n")
        assert json.loads(text) == {"loss": None, "rates": [0.25, None, None], "name": "é"}
