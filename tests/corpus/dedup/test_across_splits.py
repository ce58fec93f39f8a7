from training.corpus.dedup.across_splits import copies_across_splits
from training.corpus.sources import Document


def test_a_copy_repeats_most_of_its_long_lines():
    known = "".join(f"    the line with number {n} is long enough\n" for n in range(10))
    copied = "".join(f"the line with number {n} is long enough\n" for n in range(6))
    own = "".join(f"a line of its own with number {n} on it\n" for n in range(5))
    texts = {3: copied + own, 5: copied + own + own.replace("own", "author"), 8: "short\n" * 20}
    held_out = [(number, Document(str(number), "g", text)) for number, text in texts.items()]
    assert copies_across_splits(held_out, [Document("a", "a", known)]).tolist() == [3]
    assert copies_across_splits(held_out, []).tolist() == []
    assert copies_across_splits([], [Document("a", "a", known)]).tolist() == []
