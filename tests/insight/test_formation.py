"""When induction heads form: the published law, and the measured point; heads by name, and the head to draw."""

import pytest
from insight import write_record
from messages import refused

from training.insight.formation import formation_tokens, measured_formation
from training.insight.heads import head_to_draw, read_head, scores_of


@pytest.mark.parametrize(("batch", "context", "millions"), [(16, 256, 32), (480, 1024, 351), (1024, 2048, 726)])
def test_the_law_as_published(batch, context, millions):
    assert round(formation_tokens(batch, context) / 1e6) == millions


def test_formation_is_half_of_the_highest_score(tmp_path):
    record = write_record(tmp_path)
    scores = {step.step: max(head.induction for head in record.head_scores if head.step == step.step)
              for step in record.steps}  # fmt: skip
    assert max(scores.values()) > 0.9 and scores[8] >= max(scores.values()) / 2 > scores[1]
    assert measured_formation(record.head_scores) == 8 * 1024
    assert measured_formation([head for head in record.head_scores if head.step < 1]) is None


def test_the_induction_head_is_drawn(tmp_path):
    record = write_record(tmp_path)
    assert head_to_draw(record) == ((1, 0), "induction")
    assert [scores.step for scores in scores_of(record, (1, 0), "held_out")] == [0, 1, 8, 64]


def test_without_one_it_is_the_previous_token_head(tmp_path):
    record = write_record(tmp_path)
    record.head_scores[:] = [head for head in record.head_scores if (head.layer, head.head) != (1, 0)]
    assert head_to_draw(record) == ((0, 0), "previous_token")


@pytest.mark.parametrize("name", ["9.9", "1.2", "2.0"])
def test_a_head_that_does_not_exist(name):
    with refused("head", name, "2 layers of 2 heads", "0.0 to 1.1"):
        read_head(name, 2, 2, "head")


@pytest.mark.parametrize("name", ["1", "a.b", "-1.0", "1.3.1", "", "1."])
def test_what_is_not_a_head(name):
    with refused("head", "1.0"):
        read_head(name, 2, 2, "head")
