"""Every reader of files on damaged ones: one line, never a traceback, a hang, or memory without bound."""

import contextlib
import io
from pathlib import Path

import data_readers
import pytest
import stage_readers
from damage import OTHERS, damaged, put_odd_files, remove
from guarded import LANE, at_most_one_line
from hypothesis import given, settings
from hypothesis import strategies as st

READERS = data_readers.READERS | stage_readers.READERS


@pytest.mark.parametrize("name", READERS)
def test_one_line_for_a_damaged_file(name, tmp_path_factory, monkeypatch):
    reader, folder = READERS[name], tmp_path_factory.mktemp("files")
    monkeypatch.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        reader.make()
    put_odd_files(folder)
    valid = {file: Path(file).read_bytes() for file in reader.files}
    with contextlib.redirect_stdout(io.StringIO()):
        reader.read()  # the valid files pass
    contents = {file: damaged(file, content) for file, content in valid.items()}

    @settings(LANE, max_examples=max(1, LANE.max_examples // reader.slow))
    @given(st.data())
    def check(data: st.DataObject) -> None:
        file = Path(data.draw(st.sampled_from(sorted(valid))))
        other = data.draw(st.sampled_from((None,) * 40 + tuple(OTHERS)))
        content = None if other else data.draw(contents[str(file)])
        remove(file)
        try:
            OTHERS[other](file) if other else file.write_bytes(content)
            with (
                at_most_one_line(),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                reader.read()
        finally:
            remove(file)
            file.write_bytes(valid[str(file)])

    check()
