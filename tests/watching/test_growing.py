"""Files that grow: each line is read once, half a line not yet, and a file that was replaced is read again."""

import pytest

from training.watching.growing import GrowingFile, number


@pytest.fixture
def file(tmp_path):
    return tmp_path / "metrics.jsonl"


def steps(read):
    replaced, records = read
    return replaced, [record["step"] for record in records]


def test_each_line_is_read_once_and_half_a_line_when_it_is_whole(file):
    reader = GrowingFile()
    assert steps(reader.read(file)) == (False, [])  # not there yet
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert steps(reader.read(file)) == (False, [1, 2])
    assert steps(reader.read(file)) == (False, [])
    with file.open("a") as stream:
        stream.write('ep": 3}\n{"step": 4}')
    assert steps(reader.read(file)) == (False, [3])
    with file.open("a") as stream:
        stream.write("\n")
    assert steps(reader.read(file)) == (False, [4])


def test_a_resumed_run_drops_lines_and_writes_others(file):
    reader = GrowingFile()
    file.write_text("".join(f'{{"step": {step}, "seconds": {step}}}\n' for step in range(1, 60)))
    assert len(reader.read(file)[1]) == 59
    shorter = file.with_name("shorter")  # as MetricsLog does it
    shorter.write_text("".join(f'{{"step": {step}, "seconds": {step}}}\n' for step in range(1, 51)))
    shorter.replace(file)
    assert steps(reader.read(file)) == (True, list(range(1, 51)))
    with file.open("a") as stream:
        stream.write('{"step": 51, "seconds": 99}\n')
    assert steps(reader.read(file)) == (False, [51])


@pytest.mark.parametrize("lines", [1, 40])
def test_a_run_that_starts_over_in_the_same_file(file, lines):
    """It is as long as before, or longer, when it is looked at again."""
    reader = GrowingFile()
    file.write_text('{"step": 1, "seconds": 1}\n' * 2)
    reader.read(file)
    file.write_text('{"step": 1, "seconds": 7}\n' * lines)
    assert steps(reader.read(file)) == (True, [1] * lines)


def test_a_folder_may_get_another_name(tmp_path):
    reader, partial, final = GrowingFile(), tmp_path / "run.partial", tmp_path / "run"
    partial.mkdir()
    (partial / "metrics.jsonl").write_text('{"step": 1}\n')
    assert steps(reader.read(partial / "metrics.jsonl")) == (False, [1])
    with (partial / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 2}\n')
    partial.rename(final)
    assert steps(reader.read(partial / "metrics.jsonl")) == (False, [])
    assert steps(reader.read(final / "metrics.jsonl")) == (False, [2])


def test_what_is_no_record_is_left_out(file):
    file.write_bytes(b'\xff\xfe\n[1]\n3\n{"step": 1}\n' + b"[" * 100_000 + b'\n\n{"step": 2}\n')
    assert steps(GrowingFile().read(file)) == (False, [1, 2])


@pytest.mark.parametrize(
    "value, found", [(1.5, 1.5), (3, 3), (None, None), (float("nan"), None), ("1", None), (True, None), (10**400, None)]
)
def test_only_finite_numbers_are_figures(value, found):
    assert number({"loss": value}, "loss") == found
