import json

import pytest
from corpora import load

from training.common.errors import UserError
from training.corpus.curation.config import DataConfig
from training.corpus.curation.funnel import Funnel
from training.corpus.sources import SourceConfig, SourceReader, partitions, split_source


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twenty files of ten records each; a part is three of them."""
    for number in range(20):
        records = [json.dumps({"text": f"Story {record} of file {number:02}."}) for record in range(10)]
        (tmp_path / f"{number:02}.jsonl").write_text("\n".join(records))
    monkeypatch.setattr(partitions, "PARTITION_BYTES", 2 * (tmp_path / "00.jsonl").stat().st_size + 1)
    return tmp_path


def test_parts_are_runs_of_files(folder):
    config = SourceConfig(path=str(folder))
    found = split_source(config, "data")
    assert [len(part.files) for part in found] == [3] * 6 + [2]
    assert [part.number for part in found] == list(range(7)) and {part.of for part in found} == {20}
    assert sum(part.size for part in found) == sum(file.stat().st_size for file in folder.iterdir())
    whole = list(SourceReader(config, "mine", Funnel()))
    assert [document for part in found for document in SourceReader(config, "mine", Funnel(), partition=part)] == whole


@pytest.mark.parametrize("limit", [{"max_documents": 5}, {"max_bytes": 50}])
def test_a_source_with_a_limit_is_one_part(folder, limit):
    (part,) = split_source(SourceConfig(path=str(folder), **limit), "data")
    assert len(part.files) == 20


@pytest.mark.parametrize("path", ["-", "python", "owner/stories"])
def test_what_is_not_made_of_files_is_one_part(path):
    (part,) = split_source(SourceConfig(path=path), "data")
    assert part.files == ()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_share_of_broken_records_is_that_of_the_whole_source(folder, workers):
    """Five broken records in each of two parts: a sixth of the part, a twenty-first of the source."""
    for number in (2, 11):
        with (folder / f"{number:02}.jsonl").open("a") as stream:
            stream.write("\n{" * 5)
    limits = {"a": SourceConfig(path=str(folder), max_broken=0.05)}
    funnel = load(DataConfig(sources=limits, validation_fraction=0.2), workers=workers).funnel
    assert funnel.dropped["broken record"]["documents"] == 10
    limits = {"a": SourceConfig(path=str(folder), max_broken=0.04)}
    message = r"'data.sources.a.max_broken': 10 of 210 records are broken, more than 4.00%; such as .*02.jsonl:11:"
    with pytest.raises(UserError, match=message):
        load(DataConfig(sources=limits, validation_fraction=0.2), workers=workers)


def test_the_share_of_damaged_files_is_that_of_the_whole_source(folder):
    for number in (5, 10, 15):
        (folder / f"{number:02}.jsonl").rename(folder / f"{number:02}.jsonl.gz")
    limits = {"a": SourceConfig(path=str(folder), max_broken=0.1)}
    with pytest.raises(UserError, match=r"3 of 20 files are damaged.*'data.sources.a.max_broken' of 0.15"):
        load(DataConfig(sources=limits, validation_fraction=0.2))
    limits = {"a": SourceConfig(path=str(folder), max_broken=0.15)}
    corpus = load(DataConfig(sources=limits, validation_fraction=0.2))
    assert corpus.funnel.dropped["damaged file"]["documents"] == 3
    assert len(corpus.train + corpus.validation) == 170
