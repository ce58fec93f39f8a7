"""Files that are written whole or not at all."""

import pytest

from training.common.files import open_folder, open_whole


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    """What was written of the new one would only fill a full disk further."""
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(OSError), open_whole(file) as stream:
        stream.write(b"half")
        raise OSError(28, "No space left on device")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_a_folder_is_replaced_file_by_file_or_not_at_all(tmp_path):
    folder = tmp_path / "pictures"
    with open_folder(folder) as work:
        (work / "a.txt").write_text("old")
        (work / "maps").mkdir()
        (work / "maps" / "0").write_text("old")
    with pytest.raises(ValueError), open_folder(folder) as work:
        (work / "a.txt").write_text("half")
        raise ValueError
    assert (folder / "a.txt").read_text() == "old"
    (tmp_path / "pictures.tmp").mkdir()  # left by a process that was killed
    with open_folder(folder) as work:
        (work / "b.txt").write_text("new")
        (work / "maps").mkdir()
    assert sorted(path.name for path in folder.rglob("*")) == ["a.txt", "b.txt", "maps"]
    assert list(tmp_path.iterdir()) == [folder]
