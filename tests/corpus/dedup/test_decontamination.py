import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refused

from training.common.errors import UserError
from training.corpus.dedup.decontamination import DecontaminationConfig, Decontaminator
from training.corpus.dedup.evaluation_items import read_items
from training.corpus.sources import Document
from training.stages.recipe import build

QUESTION = "Which of these gases do green plants take out of the air to make their food, and when?"
ANSWER = "Carbon dioxide, in daylight."
SHORT = "The ship that had left in the spring came home"


def prose(count, seed=0):
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefgh", k=4)) for _ in range(count))


def document(text):
    return f"{prose(50, 1)} {text} {prose(50, 2)}"


@pytest.fixture
def found():
    return Decontaminator([("science:1", QUESTION), ("science:1", ANSWER), ("story:7", SHORT)])


def test_a_document_with_an_item_is_hit(found):
    (hit,) = found.hits(document(QUESTION))
    assert hit == ("science:1", "which of these gases do green plants take out of the air to")
    assert found.is_contaminated(found.matches(document(QUESTION)))
    assert found.hits(prose(500)) == [] and not found.is_contaminated(found.matches(prose(500)))


def test_case_punctuation_and_white_space_hide_nothing(found):
    changed = QUESTION.upper().replace(" ", "\n  ").replace(",", " --")
    assert [name for name, _ in found.hits(document(changed))] == ["science:1"]


def test_thirteen_words_in_a_row_condemn_and_twelve_do_not(found):
    split = QUESTION.split()
    assert found.hits(document(" ".join(split[2:15])))
    assert not found.hits(document(" ".join(split[2:14])))


def test_an_item_shorter_than_the_run_is_looked_for_whole(found):
    assert found.hits(document(SHORT)) == [("story:7", SHORT.lower())]
    assert not found.hits(document(SHORT.rsplit(" ", 1)[0]))


def test_what_is_too_short_is_not_looked_for(found):
    """An item counts as too short when nothing of it is looked for."""
    assert found.counts == {"searched": 2, "too short": 0}
    assert not found.hits(document(ANSWER))
    mixed = Decontaminator([("a", ANSWER), ("b", "yes"), ("b", QUESTION), ("c", "no"), ("c", "yes"), ("b", "no")])
    assert mixed.counts == {"searched": 1, "too short": 2}


def test_every_item_that_is_met_is_told():
    other = "why " + QUESTION
    both = Decontaminator([("a", QUESTION), ("b", other), ("c", SHORT)])
    assert [name for name, _ in both.hits(document(f"{QUESTION} {SHORT}"))] == ["a", "b", "c"]


def test_common_phrases_condemn_nothing():
    """What many documents have, by the caller's count, is left alone; the rest of the same item still condemns."""
    licence = "permission is hereby granted free of charge to any person obtaining a copy"
    found = Decontaminator([("a", licence + " of this book about seals"), ("b", QUESTION)])
    documents = [document(licence)] * 11 + [document(QUESTION), prose(100)]
    matches = [found.matches(text) for text in documents]
    assert all(map(found.is_contaminated, matches[:12]))
    owners, met = found.meet((number, Document("", "", text)) for number, text in enumerate(documents, 100))
    counts = np.bincount(met, minlength=found.runs)
    assert set(owners) == set(range(100, 112)) and counts.max() == 11
    condemned, left = found.contaminated(owners, met, max_documents=10)
    assert condemned.tolist() == [111]
    assert found.contaminated(owners, met, max_documents=11)[0].tolist() == list(range(100, 112))
    assert [left.is_contaminated(match) for match in matches] == [False] * 11 + [True, False]
    assert left.hits(documents[0]) == [] and [name for name, _ in left.hits(documents[11])] == ["b"]
    assert left.is_contaminated(left.matches(document(licence + " of this book about seals")))
    assert found.is_contaminated(matches[0])  # as it was
    assert not left.without(counts == 1).without(counts > 99).is_contaminated(matches[11])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 3))
def test_agrees_with_looking_through_all_words(seed, ngram, less):
    draw = random.Random(seed)
    min_words = max(1, ngram - less)
    items = [(str(number), [draw.choice("abc") for _ in range(draw.randint(0, 8))]) for number in range(5)]
    text = [draw.choice("abc") for _ in range(draw.randint(0, 12))]

    def meets(item):
        size = min(ngram, len(item))
        runs = {tuple(item[place : place + size]) for place in range(len(item) - size + 1)}
        return len(item) >= min_words and any(
            tuple(text[place : place + size]) in runs for place in range(len(text) - size + 1)
        )

    found = Decontaminator([(name, " ".join(item)) for name, item in items], ngram, min_words)
    hits = found.hits(" ".join(text))
    assert [name for name, _ in hits] == sorted(name for name, item in items if meets(item))
    assert all(run in " ".join(text) for _, run in hits)
    assert found.is_contaminated(found.matches(" ".join(text))) == bool(hits)


# files


def write(path, *records):
    lines = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return path


RECORDS = ({"question": QUESTION, "choices": [ANSWER, {"text": SHORT}], "gold": 1}, {"question": prose(20)})


@pytest.mark.parametrize("name", ["items.jsonl", "items.jsonl.gz"])
def test_every_text_of_a_record_is_an_item(tmp_path, name):
    texts = list(read_items(write(tmp_path / name, *RECORDS)))
    assert texts == [(f"{name}:1", text) for text in (QUESTION, ANSWER, SHORT)] + [(f"{name}:2", prose(20))]


def test_a_list_of_records(tmp_path):
    (tmp_path / "items.json").write_text(json.dumps(RECORDS))
    assert [name for name, _ in read_items(tmp_path / "items.json")] == ["items.json:1"] * 3 + ["items.json:2"]


def test_named_fields_only(tmp_path):
    path = write(tmp_path / "items.jsonl", *RECORDS)
    assert [text for _, text in read_items(path, ["question"])] == [QUESTION, prose(20)]
    with pytest.raises(UserError, match="items.jsonl:1 has no field 'questions'; did you mean 'question'"):
        list(read_items(path, ["questions"]))


def task(tmp_path, text):
    (tmp_path / "task.yaml").write_text(text)
    return tmp_path / "task.yaml"


def test_an_lm_eval_task_with_local_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "test.jsonl", {"question": QUESTION})
    write(tmp_path / "train.jsonl", {"question": prose(20)})
    (tmp_path / "shared").write_text("dataset_path: json\ndataset_kwargs:\n  data_files: none.jsonl\n")
    path = task(
        tmp_path,
        "include: shared\ntask: science\nprocess_docs: !function utils.process_docs\ntraining_split: train\n"
        "test_split: test\ndataset_kwargs:\n  data_files: {train: train.jsonl, test: [test.jsonl]}\n",
    )
    assert list(read_items(path)) == [("science:1", QUESTION)]


def test_a_data_set_that_is_no_json_is_opened_by_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "items.csv").write_text(f'question,answer\n"{QUESTION}","{ANSWER}"\n')
    options = f"dataset_kwargs: {{data_files: {{validation: {tmp_path}/items.csv}}, cache_dir: {tmp_path}/cache}}"
    path = task(tmp_path, f"task: table\ndataset_path: csv\nvalidation_split: validation\n{options}\n")
    assert list(read_items(path)) == [("table:1", QUESTION), ("table:1", ANSWER)]


def test_the_tasks_of_the_recipes_are_understood(tmp_path, monkeypatch):
    recipes = Path(__file__).parents[3] / "recipes" / "lm_eval"
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/quickstart/data/tasks"
    folder.mkdir(parents=True)
    for name in ("body_choice", "docstring_choice"):
        write(folder / f"{name}.jsonl", {"query": QUESTION, "choices": [prose(9), prose(3)], "gold": 0})
    found = Decontaminator.from_files(sorted(recipes.glob("*.yaml")))
    assert found.counts == {"searched": 2, "too short": 0}
    hits = [name for name, _ in found.hits(document(QUESTION))]
    assert hits == ["scratch_body_choice:1", "scratch_docstring_choice:1"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.txt", "a,b\n", "items.txt: unknown file type; .*jsonl"),
        ("items.jsonl", '{"a": "b"}\n{"a": \n', "items.jsonl:2: not valid JSON"),
        ("items.jsonl", "[1, 2]\n", r"items.jsonl:1: .* JSON object, not \[1, 2\]"),
        ("items.jsonl", b"\xff\xff\x00", "items.jsonl:1: not UTF-8"),
        ("items.jsonl.gz", "no gzip", "items.jsonl.gz:1: not valid JSON"),
        ("items.jsonl", "", "no text of 8 words or more"),
        ("items.jsonl", '{"a": "too short"}\n', "no text of 8 words or more"),
        ("task.yaml", "task: [a\n", "not valid YAML"),
        ("task.yaml", "- a\n", "a mapping of keys, not a list"),
        ("task.yaml", "group: g\ntask: [a, b]\n", "the files of single tasks"),
        ("task.yaml", "task: a\ndataset_path: json\n", "neither 'test_split' nor 'validation_split'"),
        ("task.yaml", "include: gone.yaml\ntask: a\n", "'evaluation': .*gone.yaml: no such file"),
        (
            "task.yaml",
            "task: a\ndataset_path: json\ntest_split: test\ndataset_kwargs: {data_files: {tset: a.jsonl}}\n",
            "no split 'test'; did you mean 'tset'",
        ),
        (
            "task.yaml",
            "task: a\ndataset_path: json\ntest_split: test\ndataset_kwargs: {data_files: gone.jsonl}\n",
            "no such file: gone.jsonl",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        Decontaminator.from_files([tmp_path / name])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("spelling", ["../tasks/task.yaml", "link.yaml"])
def test_tasks_that_include_each_other_in_other_words(tmp_path, spelling):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "link.yaml").symlink_to("task.yaml")
    with refused(None, "includes itself"):
        Decontaminator.from_files([task(folder, f"include: {spelling}\ntask: a\n")])


def test_a_data_set_out_of_reach_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("offline")))
    with pytest.raises(UserError, match="'owner/name' cannot be read: offline"):
        list(read_items(task(tmp_path, "task: a\ndataset_path: owner/name\ntest_split: test\n")))


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(UserError, match="'evaluation': .*gone.jsonl: no such file"):
        Decontaminator.from_files([tmp_path / "gone.jsonl"])


def test_config_names_the_wrong_key():
    for wrong, key in (({"ngram": 5, "min_words": 6}, "min_words"), ({"max_documents": 0}, "max_documents")):
        with refused(key, wrong[key]):
            build(DecontaminationConfig, wrong, "recipe.yaml")
