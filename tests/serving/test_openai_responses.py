"""OpenAI-shaped responses: valid JSON for every probability."""

import json
import math

import pytest

from training.serving.answer import Candidate, Piece
from training.serving.openai_responses import ChatShape, Choice, CompletionShape


@pytest.mark.parametrize("logprob", [-math.inf, math.nan])
@pytest.mark.parametrize("kind", [ChatShape, CompletionShape])
def test_a_probability_that_json_cannot_hold(kind, logprob):
    impossible = Candidate(5, "x", b"x", logprob)
    piece = Piece("x", impossible, (impossible,), "length")
    for content in (kind("tiny").entry(0, Choice("x", [piece])), *kind("tiny").chunks(0, piece)):
        written = json.dumps(content, allow_nan=False)
        assert written.count("-9999.0") == (2 if "x" in written.partition("logprobs")[2] else 0)
