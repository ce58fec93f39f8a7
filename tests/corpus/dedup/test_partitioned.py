"""Near duplicates found by tasks are those of one process, for any number of tasks, killed or not."""

import shutil

import numpy as np
import pytest

from training.corpus.dedup.minhash import NOTHING, MinHashConfig
from training.corpus.dedup.neighbours import near_duplicates
from training.corpus.dedup.partitioned import near_duplicates_by_tasks

CONFIG = MinHashConfig(bands=10, rows=3, threshold=0.7)
COUNT = 3_000


@pytest.fixture(scope="module")
def signatures(tmp_path_factory):
    """Chains and large families of similar documents, equal signatures, and documents without a shingle."""
    draw = np.random.default_rng(0)
    rows = draw.integers(0, 2**32 - 1, (COUNT, CONFIG.permutations), dtype=np.uint32)
    for place in range(1, COUNT):
        kind = draw.random()
        source = draw.integers(0, place) if kind < 0.3 else draw.integers(0, min(place, 10))
        if kind < 0.5:
            kept = draw.random(CONFIG.permutations) < draw.uniform(0.6, 1)
            rows[place, kept] = rows[source, kept]
        elif kind < 0.6:
            rows[place] = rows[source]
    rows[draw.random(COUNT) < 0.02] = NOTHING
    file = tmp_path_factory.mktemp("signatures") / "signatures.npy"
    np.save(file, rows)
    return file


def run(name, items, sizes, work, done):
    """Two tasks, in this process."""
    work(items[::2])
    work(items[1::2])


def check_same(found, signatures):
    expected = near_duplicates(np.load(signatures), CONFIG)
    assert 800 < len(expected.dropped) < COUNT
    for name in ("dropped", "kept", "jaccard"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_tasks_find_what_one_process_finds(signatures, tmp_path, parts):
    rows = -(-COUNT // parts)
    check_same(near_duplicates_by_tasks(signatures, CONFIG, tmp_path / "near", parts, run, rows), signatures)
    assert not (tmp_path / "near").exists()


def test_a_killed_task_is_resumed(signatures, tmp_path):
    """Complete files are left as they are, by both steps."""
    folder, done = tmp_path / "near", {}

    def killed(victim):
        def one(name, items, sizes, work, done):
            for number, item in enumerate(items):
                if name == victim and number == 2:
                    raise KeyboardInterrupt
                work([item])

        return one

    for victim in ("near_keys", "near_pairs"):
        with pytest.raises(KeyboardInterrupt):
            near_duplicates_by_tasks(signatures, CONFIG, folder, 5, killed(victim), 600)
        assert done.items() <= (done := {file: file.stat().st_mtime_ns for file in folder.iterdir()}).items()
    assert len(list(folder.glob("pairs-*.npy"))) == 2 and len(list(folder.glob("keys-*.bin"))) == 5
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    check_same(near_duplicates_by_tasks(signatures, CONFIG, folder, 5, run, 600), signatures)
    check_same(near_duplicates_by_tasks(signatures, CONFIG, other, 7, run, 600), signatures)  # more tasks than before


def test_no_near_duplicates(tmp_path):
    rows = np.random.default_rng(0).integers(0, 2**32 - 1, (50, CONFIG.permutations), dtype=np.uint32)
    np.save(tmp_path / "signatures.npy", rows)
    found = near_duplicates_by_tasks(tmp_path / "signatures.npy", CONFIG, tmp_path / "near", 3, run)
    assert not len(found.dropped) and not len(found.kept) and not len(found.jaccard)
