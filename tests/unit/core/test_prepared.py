"""What was prepared for a run, in its result file: JSON that every reader takes."""

import json
import math
from datetime import date

from cosim.flexibility.sizing import Sized
from cosim.prepare import Prepared, prepared_as_plain, prepared_from_plain

SIZED = Sized({"A.cell": -600.0}, -650.0, -900.0, 120.0, -640.0, 110.0)
PREPARED = Prepared({"A.cell": -600.0, "B.cell": -math.inf}, SIZED, date(2016, 7, 23), -650.0, -900.0)


def test_goes_into_json_and_back() -> None:
    text = json.dumps(prepared_as_plain(PREPARED), allow_nan=False)
    assert json.loads(text)["thresholds_kw"] == {"A.cell": -600.0, "B.cell": None}
    assert prepared_from_plain(json.loads(text)) == PREPARED


def test_older_files_hold_infinity() -> None:
    plain = prepared_as_plain(PREPARED)
    text = json.dumps(plain | {"thresholds_kw": PREPARED.thresholds_kw})
    assert "-Infinity" in text
    assert prepared_from_plain(json.loads(text)) == PREPARED
