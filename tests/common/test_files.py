"""Files that are written whole or not at all."""

import pytest

from training.common.files import open_whole


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    """What was written of the new one would only fill a full disk further."""
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(OSError), open_whole(file) as stream:
        stream.write(b"half")
        raise OSError(28, "No space left on device")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
