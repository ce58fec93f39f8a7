import math

import numpy as np
import pytest

from training.eval.estimates import share


def test_share_and_its_standard_error():
    outcomes = [True, True, False, True]
    estimate = share(outcomes, chance=0.25)
    assert estimate["value"] == 0.75 and estimate["n"] == 4 and estimate["chance"] == 0.25
    assert estimate["stderr"] == pytest.approx(np.std(outcomes, ddof=1) / math.sqrt(4))
    assert "chance" not in share(outcomes)


def test_one_outcome_has_no_error_to_speak_of():
    assert share([True])["stderr"] is None
    with pytest.raises(ValueError):
        share([])
