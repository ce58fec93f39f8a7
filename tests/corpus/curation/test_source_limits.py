import numpy as np
import pytest

from training.corpus.curation.source_limits import SourceLimits
from training.corpus.sources import SourceConfig


def limits(*blocks, **options):
    limits = SourceLimits(SourceConfig(path="a", **options))
    for block in blocks:
        limits.add(np.array(block))
        if limits.reached:
            break
    return limits.documents, limits.cut, limits.reached


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (6, None, False)),
        ({"max_documents": 7}, (6, None, False)),
        ({"max_documents": 6}, (6, None, True)),
        ({"max_documents": 3}, (3, None, True)),
        ({"max_documents": 2}, (2, None, True)),
        ({"max_bytes": 61}, (6, None, False)),
        ({"max_bytes": 60}, (6, None, True)),
        ({"max_bytes": 45}, (5, 5, True)),
        ({"max_bytes": 30}, (3, None, True)),
        ({"max_bytes": 3}, (1, 3, True)),
        ({"max_bytes": 45, "max_documents": 4}, (4, None, True)),
        ({"max_bytes": 15, "max_documents": 2}, (2, 5, True)),
    ],
)
def test_limits_fall_where_they_say(options, expected):
    assert limits([10, 10, 10], [], [10, 10, 10], **options) == expected
