"""`data_dir` against lm-eval's own path: the same items once from the Hub's layout, once from local files."""

import gzip
import json
import math
import os

import pytest
import yaml
from datasets import Dataset

from training.eval.harness.catalog import TaskCatalog
from training.eval.harness.local_data import LocalData
from training.eval.harness.runner import TaskRunner
from training.eval.harness.suites import FOLDERS

WORDS = ["sun", "river", "stone", "apple", "house", "bird", "cloud", "fox"]


def word(number):
    return WORDS[number % len(WORDS)]


def arc(count):
    """Three choices where the number is odd, four where it is even; never the first one right by rule."""
    for n in range(count):
        texts = [f"the {word(n + shift)}" for shift in (0, 1, 3, 6)[: 4 - n % 2]]
        yield f"What is {n} {word(n)}?", texts, (n * 2 + 1) % len(texts)


ARC = list(arc(8))
PIQA = [(f"find a {word(n)}", f"look for {word(n + 1)}", f"buy a {word(n + 2)}!", n % 2) for n in range(6)]
BLIMP = {
    uid: [(f"The {word(n)} sees it.", f"The {word(n)} see {uid} it.") for n in range(5)]
    for uid in ("animate_subject_trans", "causative")
}
LAMBADA = [(f"The {word(n)} saw the {word(n + 1)} and then the", word(n + 1)) for n in range(6)]
COPA = [(f"The {word(n)} fell", f"the {word(n + 1)} pushed.", f"the {word(n + 3)} slept.", n % 2) for n in range(6)]
SCHEMAS = [(f"The {word(n)} hit", f"the {word(n + 1)}", f"the {word(n + 4)}", "was hard.", n % 2) for n in range(5)]
SCHEMAS.append(("We saw a bear. John punished", "the fox", "the bird", ".", 1))
MMLU = {
    (subject, split): [
        (f"How many {word(n)} in {subject}?", [word(n + shift) for shift in (0, 2, 3, 5)], n % 4) for n in range(count)
    ]
    for subject, start in (("astronomy", 0), ("virology", 2))
    for split, count in (("test", 4), ("dev", 3))
}
GSM8K = {
    split: [(f"{n} and {n + 1}?", f"It is {2 * n + 1}.\n#### {2 * n + 1}") for n in range(4)]
    for split in ("train", "test")
}
HELLASWAG = [
    (f"Cooking {word(n)}", f"A man takes a {word(n)}. he", [f"eats {word(n + s)}." for s in range(4)], n % 4)
    for n in range(6)
]


TRAINED = ("allenai/ai2_arc", "baber/piqa", "aps/super_glue", "Rowan/hellaswag")


def parquet(root, path, config, split, records):
    """A file of a data set as the Hub holds it, and its entry in the card that tells `datasets` where it is."""
    folder = root / path
    file = f"{config}/{split}-00000-of-00001.parquet"
    (folder / config).mkdir(parents=True, exist_ok=True)
    Dataset.from_list(records).to_parquet(folder / file)
    card = folder / "README.md"
    content = yaml.safe_load(card.read_text().split("---")[1]) if card.exists() else {"configs": []}
    entry = next((entry for entry in content["configs"] if entry["config_name"] == config), None)
    if entry is None:
        content["configs"].append(entry := {"config_name": config, "data_files": []})
    # lm-eval opens the training split of every set that has one, whether it takes examples from there or not.
    splits = [split, "train"] if path in TRAINED and split == "validation" else [split]
    entry["data_files"] += [{"split": name, "path": file} for name in splits]
    card.write_text(f"---\n{yaml.safe_dump(content)}---\n")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Data sets as the Hub has them: `datasets` takes them from the current folder by their names."""
    root = tmp_path_factory.mktemp("hub")
    letters = "ABCD"
    records = [
        {"id": str(n), "question": q, "choices": {"text": c, "label": [*letters[: len(c)]]}, "answerKey": letters[gold]}
        for n, (q, c, gold) in enumerate(ARC)
    ]
    parquet(root, "allenai/ai2_arc", "ARC-Easy", "validation", records)
    parquet(root, "allenai/ai2_arc", "ARC-Easy", "test", records)
    parquet(
        root,
        "baber/piqa",
        "default",
        "validation",
        [{"goal": g, "sol1": a, "sol2": b, "label": gold} for g, a, b, gold in PIQA],
    )
    for uid, pairs in BLIMP.items():
        parquet(
            root,
            "nyu-mll/blimp",
            uid,
            "train",
            [{"sentence_good": good, "sentence_bad": bad, "UID": uid} for good, bad in pairs],
        )
    parquet(root, "EleutherAI/lambada_openai", "default", "test", [{"text": f"{c} {w}"} for c, w in LAMBADA])
    parquet(
        root,
        "aps/super_glue",
        "copa",
        "validation",
        [
            {
                "premise": f"{p}.",
                "choice1": a.capitalize(),
                "choice2": b.capitalize(),
                "question": "cause",
                "label": gold,
            }
            for p, a, b, gold in COPA
        ],
    )
    parquet(
        root,
        "lighteval/winograd_wsc",
        "wsc273",
        "test",
        [
            {
                "text": f"{before} it{after if after == '.' else ' ' + after}",
                "pronoun": "it",
                "pronoun_loc": len(before) + 1,
                "options": [a, b],
                "label": gold,
            }
            for before, a, b, after, gold in SCHEMAS
        ],
    )
    for (subject, split), items in MMLU.items():
        parquet(
            root,
            "cais/mmlu",
            subject,
            split,
            [{"question": q, "subject": subject, "choices": c, "answer": gold} for q, c, gold in items],
        )
    for split, items in GSM8K.items():
        parquet(root, "openai/gsm8k", "main", split, [{"question": q, "answer": a} for q, a in items])
    parquet(
        root,
        "Rowan/hellaswag",
        "default",
        "validation",
        [
            {
                "activity_label": a,
                "ctx_a": c[: c.index(".") + 1],
                "ctx_b": c[c.index(".") + 2 :],
                "endings": e,
                "label": str(gold),
            }
            for a, c, e, gold in HELLASWAG
        ],
    )
    return root


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The same items in the shapes of llm-foundry and of the sets' own repositories."""
    root = tmp_path_factory.mktemp("local")

    def write(name, records):
        text = "".join(json.dumps(record) + "\n" for record in records)
        (root / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())

    write(
        "arc_easy.jsonl",
        [
            {"query": f"Question: {q}", "choices": c + c[:1] if len(c) == 3 and gold else c, "gold": gold}
            for q, c, gold in ARC
        ],
    )
    write("piqa.jsonl", [{"query": f"Question: {g}\n", "choices": [a, b], "gold": gold} for g, a, b, gold in PIQA])
    write(
        "blimp_a.jsonl.gz",
        [
            {"sentence_good": good, "sentence_bad": bad, "UID": uid, "pairID": str(n)}
            for uid, pairs in BLIMP.items()
            for n, (good, bad) in enumerate(pairs)
        ],
    )
    write("lambada_a.jsonl", [{"context": c, "continuation": w} for c, w in LAMBADA])
    write("copa.jsonl", [{"query": f"{p}, because", "choices": [a, b], "gold": gold} for p, a, b, gold in COPA])
    write(
        "winograd_wsc.jsonl",
        [
            {"context_options": [f"{before} {a}", f"{before} {b}"], "continuation": after, "gold": gold}
            for before, a, b, after, gold in SCHEMAS
        ],
    )
    for part in ("test", "dev"):
        write(
            f"mmlu_{part}.jsonl",
            [
                {"question": q, "subject": subject, "choices": c, "answer": gold}
                for (subject, split), items in MMLU.items()
                if split == part
                for q, c, gold in items
            ],
        )
    for split, items in GSM8K.items():
        write(f"gsm8k_{split}.jsonl", [{"question": q, "answer": a} for q, a in items])
    write(
        "hellaswag_val.jsonl",
        [{"query": f"{a}: {c.replace(' he', ' He')}", "choices": e, "gold": gold} for a, c, e, gold in HELLASWAG],
    )
    return root


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model(context=768, seed=3)


def open_tasks(names, tasks_dir, local, shots=None):
    """Tasks, ready to score."""
    catalog = TaskCatalog(names, tasks_dir, local=local, num_fewshot=shots)
    catalog.find()
    runner = TaskRunner(catalog)
    runner.load()
    return runner


ZERO_SHOT = ["arc_easy", "piqa", "lambada", "copa", "wsc273", "hellaswag", "blimp"]
PARTS = {
    "lambada": ["lambada_openai"],
    "blimp": [f"blimp_{uid}" for uid in BLIMP],
    "mmlu": ["mmlu_astronomy", "mmlu_virology"],
}


@pytest.mark.parametrize("names, shots", [(ZERO_SHOT, None), (["mmlu", "gsm8k"], 2)], ids=["zero-shot", "two-shot"])
def test_the_same_items_give_the_same_scores(hub, local, model, tokenizer, tmp_path, monkeypatch, names, shots):
    """Prompts, log-likelihoods and scores, item by item, equal; so is what the stock code makes of our task files."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks import __file__ as root

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # on the machine, in seconds
    monkeypatch.chdir(hub)
    folders = [os.path.join(os.path.dirname(root), folder) for folder in FOLDERS]

    def stock(tasks, extra=()):
        return simple_evaluate(
            HFLM(model, tokenizer=tokenizer, batch_size=4, max_length=768),
            tasks=tasks,
            task_manager=TaskManager(include_path=[*folders, *extra], include_defaults=False),
            num_fewshot=shots,
            bootstrap_iters=0,
            gen_kwargs="max_gen_toks=24",  # of the one task that writes
        )

    ours = TaskCatalog(names, tmp_path, local=LocalData(local), num_fewshot=shots)
    ours.find()
    ours.write(tmp_path / "tasks")
    theirs = [task for name in names for task in PARTS.get(name, [name])]
    expected = stock(theirs)
    monkeypatch.chdir(tmp_path)  # where no Hub is
    repeated = stock(ours.names, [str(tmp_path / "tasks")])

    assert set(expected["samples"]) == set(repeated["samples"]) == set(theirs)
    for task, samples in expected["samples"].items():
        again = repeated["samples"][task]
        assert len(samples) == len(again) > 3
        for one, other in zip(samples, again):
            for key in ("arguments", "resps", "target", *one["metrics"]):
                assert one[key] == other[key], (task, one["doc"], other["doc"])
        assert any(one["arguments"] != samples[0]["arguments"] for one in samples)

    # And through our own runner; of gsm8k, which writes 256 tokens an item there, this is enough.
    names = [name for name in names if name != "gsm8k"]
    runner = open_tasks(names, tmp_path, LocalData(local), shots)
    scores = runner.score(model, tokenizer, batch_size=4, context=768)
    figures = scores.figures | {key: figure for tasks in scores.subtasks.values() for key, figure in tasks.items()}
    for task in (task for name in names for task in PARTS.get(name, [name])):
        stock_figures = expected["results"][task]
        of_task = {key.metric: figure for key, figure in figures.items() if key.name == task}
        assert "acc" in of_task
        for metric, figure in of_task.items():
            theirs = -math.log(stock_figures["perplexity,none"]) if metric == "log-likelihood" else None
            assert figure.value == pytest.approx(theirs or stock_figures[f"{metric},none"], rel=1e-6)
        kept = [outcome.scores["acc"] for outcome in scores.outcomes if outcome.name == task]
        assert kept == [sample["acc"] for sample in expected["samples"][task]]


def test_a_copy_of_the_hubs_files_serves_any_task(hub, local, model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    scores = {}
    for folder in (hub, local):
        tasks = open_tasks(["arc_easy"], tmp_path, LocalData(folder))
        tasks.catalog.write(tmp_path / folder.name)
        scores[folder] = tasks.score(model, tokenizer, batch_size=4, context=768)
    assert scores[hub].figures == scores[local].figures
    assert "dataset_path: " + str(hub) in (tmp_path / hub.name / "arc_easy.yaml").read_text()
