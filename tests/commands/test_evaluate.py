"""`scratch evaluate`: models and held-out data in, results out; resumes at the next model; rejects what cannot work."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import datasets
import huggingface_hub
import pytest
import torch
from messages import refused
from transformers import GPT2Config, GPT2LMHeadModel

from modeling_scratch import ScratchConfig, ScratchForCausalLM, ScratchForSequenceClassification
from modeling_scratch.tokenization_base import END_OF_TEXT
from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.commands import evaluate
from training.data.shards import write_manifest, write_shard
from training.eval.results.items import read_outcomes
from training.stages.provenance import read_provenance
from training.stages.recipe import build
from training.stages.yaml_values import read_yaml

TEXTS = [f"def add_{n}(a, b):\n    return a + b + {n}\n" for n in range(30)]
TASK = """\
task: which_body
dataset_path: json
dataset_kwargs: {data_files: {test: tasks/which_body.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: query
doc_to_choice: choices
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def turn(role, content):
    return {"role": role, "content": content}


def save_model(folder, tokenizer_folder, seed, vocab_size, model_class=ScratchForCausalLM, **dials):
    torch.manual_seed(seed)
    config = ScratchConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        **dials,
    )
    model_class(config).save_pretrained(folder)
    shutil.copytree(tokenizer_folder, folder, dirs_exist_ok=True)


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What the stages before leave: tokenizer, data, two models; and a folder with one lm-eval task."""
    root = tmp_path_factory.mktemp("world")
    tokenizer = ScratchTokenizer.train(TEXTS, vocab_size=280)
    tokenizer.save(root / "tokenizer")
    data = root / "data"
    data.mkdir()
    documents = [[*tokenizer.encode(text), tokenizer.vocab[END_OF_TEXT]] for text in TEXTS]
    entry = write_shard(data, "validation", documents, len(tokenizer), "tokenizer")
    entry["bytes"] = sum(len(text.encode()) for text in TEXTS)
    write_manifest(data, {"validation": entry}, root / "tokenizer", len(tokenizer), {})
    asked = [[turn("user", f"Write add_{n}.")] for n in range(6)]
    write_lines(
        data / "instructions" / "validation.jsonl",
        [{"messages": [*ask, turn("assistant", TEXTS[n])], "name": f"add_{n}"} for n, ask in enumerate(asked)],
    )
    write_lines(
        data / "preferences" / "validation.jsonl",
        [
            {"prompt": ask, "chosen": [turn("assistant", TEXTS[n])], "rejected": [turn("assistant", TEXTS[n + 9])]}
            for n, ask in enumerate(asked)
        ],
    )
    write_lines(
        data / "tasks" / "which_body.jsonl",
        [{"query": f"add_{n}", "choices": [TEXTS[n], TEXTS[n + 7]], "gold": n % 2} for n in range(8)],
    )
    (root / "tasks").mkdir()
    (root / "tasks" / "which_body.yaml").write_text(TASK)
    for seed, name in enumerate(("pretrain", "sft")):
        save_model(root / name, root / "tokenizer", seed, vocab_size=288)
    save_model(root / "reward", root / "tokenizer", 2, 288, ScratchForSequenceClassification, num_labels=1)
    answered = [
        {"instruction": ask[0]["content"], "output": TEXTS[n], "pattern": "[^b]*"} for n, ask in enumerate(asked)
    ]
    write_lines(root / "asked.jsonl", answered)
    told_apart = [{"instruction": "Add.", "chosen": TEXTS[n], "rejected": TEXTS[n + 9]} for n in range(8)]
    write_lines(root / "pairs.jsonl", told_apart)
    return root


def arguments(world, output, **options):
    options = {
        "output_dir": output,
        "models": f"{{base: {world / 'pretrain'}, sft: {world / 'sft'}}}",
        "data": world / "data",
        "tasks_dir": world / "tasks",
        "max_new_tokens": 8,
        **options,
    }
    return [part for key, value in options.items() for part in (f"--{key}", str(value))]


def of_data(world):
    """Chats and pairs on the records that `scratch prepare` writes."""
    functions = f"{{file: {world / 'data' / 'instructions' / 'validation.jsonl'}, rewards: [parses, defines]}}"
    return {
        "chats": f"{{functions: {functions}}}",
        "pairs": f"{{preferences: {world / 'data' / 'preferences' / 'validation.jsonl'}}}",
        "limits.chats": 4,
        "limits.pairs": 5,
    }


def results_of(output):
    return json.loads((output / "results.json").read_text())


def test_every_measure_of_every_model(world, tmp_path, capsys):
    output = tmp_path / "evaluate"
    evaluate.main(arguments(world, output, tasks="[which_body]", **of_data(world)))
    results = results_of(output)
    config = build(evaluate.CONFIG, read_provenance(output)["recipe"], "provenance")
    assert evaluate.inputs(config) == read_provenance(output)["inputs"]
    assert list(results["models"]) == ["base", "sft"]
    for row in results["models"].values():
        figures = row["figures"]
        bits = figures["data"]["validation"]["bits per byte"]
        assert bits["value"] > 0 and bits["details"]["context"] == 128
        functions = figures["chats"]["functions"]
        assert list(functions) == ["ends", "parses", "defines", "all", "bits per byte"]
        assert functions["all"]["n"] == 4 and len(row["samples"]["functions"]) == 4
        accuracy = figures["pairs"]["preferences"]["accuracy"]
        assert accuracy["n"] == 5 and accuracy["chance"] == 0.5
        task = figures["tasks"]["which_body"]["acc"]
        assert task["n"] == 8 and task["chance"] == 0.5
        assert set(row["seconds"]) == {"data", "chats", "pairs", "tasks"}
    base, sft = (
        row["figures"]["data"]["validation"]["bits per byte"]["value"] for row in results["models"].values()
    )
    assert base != sft  # two models, not one measured twice
    assert {"torch", "transformers", "lm_eval"} == set(results["conditions"]["versions"])
    page = (output / "results.md").read_text()
    assert f"| base | {base:.3f} |" in page and "which_body: accuracy (chance 50%)" in page
    assert str(world / "data" / "tasks") in (output / "tasks" / "which_body.yaml").read_text()
    kept = read_outcomes(output, "sft")
    assert Counter((outcome.kind, outcome.name) for outcome in kept) == {
        ("data", "validation"): 30,
        ("chats", "functions"): 4 + 4,  # generated answers, and those of the file
        ("pairs", "preferences"): 5,
        ("tasks", "which_body"): 8,
    }
    assert "| preferences: accuracy | 5 | 50 |" in (output / "comparison.md").read_text()
    metrics = json.loads((output / "provenance.json").read_text())["metrics"]
    assert metrics["sft"]["figures"]["data"]["validation"]["bits per byte"]["value"] == sft

    evaluate.main(arguments(world, output, tasks="[which_body]", **of_data(world)))
    assert "up to date, skipped" in capsys.readouterr().out


def test_an_interrupted_evaluation_goes_on_with_the_next_model(world, tmp_path, monkeypatch):
    output, measure, measured = tmp_path / "evaluate", evaluate.measure_model, []

    def interrupted(candidate, *rest):
        if candidate.folder.endswith("sft"):
            raise KeyboardInterrupt
        return measure(candidate, *rest)

    def recorded(candidate, *rest):
        measured.append(candidate.folder)
        return measure(candidate, *rest)

    monkeypatch.setattr(evaluate, "measure_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main(arguments(world, output))
    assert not output.exists()

    monkeypatch.setattr(evaluate, "measure_model", recorded)
    evaluate.main(arguments(world, output))
    assert measured == [str(world / "sft")]
    assert list(results_of(output)["models"]) == ["base", "sft"]


TINY_BLIMP = [
    {"sentence_good": f"The cat {verb}s.", "sentence_bad": f"The cat {verb}.", "UID": uid}
    for uid in ("causative", "transitive")
    for verb in ("see", "hear", "find", "want")
]


@pytest.fixture(scope="module")
def stock(world, tmp_path_factory):
    """A model of transformers' own with another tokenizer, as from anywhere."""
    folder = tmp_path_factory.mktemp("stock") / "gpt2"
    ScratchTokenizer.train(TEXTS, vocab_size=270).save(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=270, n_embd=32, n_layer=1, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_any_model_on_any_text_and_suites_from_local_files(world, stock, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_lines(tmp_path / "eval" / "blimp.jsonl", TINY_BLIMP)
    (tmp_path / "mine.txt").write_text("".join(TEXTS))
    asked = f"{{file: {world / 'asked.jsonl'}, rewards: [format], reward_model: {world / 'reward'}}}"
    options = {
        "output_dir": tmp_path / "out",
        "models": f"{{ours: {world / 'sft'}, stock: {stock}}}",
        "texts": f"{{mine: {tmp_path / 'mine.txt'}}}",
        "chats": f"{{asked: {asked}}}",
        "pairs": f"{{told: {world / 'pairs.jsonl'}}}",
        "limits.chats": 4,
        "limits.pairs": 5,
        "max_new_tokens": 8,
        "tasks": "[blimp]",
        "data_dir": tmp_path / "eval",
        "limits.tasks": 3,
    }
    evaluate.main([part for key, value in options.items() for part in (f"--{key}", str(value))])
    results = results_of(tmp_path / "out")
    for row in results["models"].values():
        assert set(row["seconds"]) == {"texts", "chats", "pairs", "tasks"}
        found = row["figures"]
        chat = found["chats"]["asked"]
        assert list(chat) == ["ends", "format", "all", "reward", "bits per byte"]
        samples = row["samples"]["asked"]
        fitting = [bool(re.fullmatch("[^b]*", sample["answer"].strip(), re.DOTALL)) for sample in samples]
        assert len(fitting) == 4 and chat["format"]["value"] == sum(fitting) / 4
        assert {figure["n"] for figure in chat.values()} == {4} and chat["bits per byte"]["value"] > 0
        accuracy = found["pairs"]["told"]["accuracy"]
        assert accuracy["n"] == 5 and accuracy["chance"] == 0.5
        text = found["texts"]["mine"]["bits per byte"]
        assert text["details"]["bytes"] == sum(map(len, TEXTS)) and text["value"] > 0
        assert found["tasks"]["blimp"]["acc"]["n"] == 6 and found["tasks"]["blimp"]["acc"]["chance"] == 0.5
        assert set(row["subtasks"]["blimp"]) == {"blimp_causative", "blimp_transitive"}
    figures = {name: row["figures"] for name, row in results["models"].items()}
    assert figures["stock"]["texts"]["mine"]["bits per byte"]["details"]["context"] == 64
    page = (tmp_path / "out" / "results.md").read_text()
    assert "- blimp: 2 of 67 of its tasks have data" in page
    assert "- reward models: asked: FOLDER" in page and str(world) not in page
    assert "asked: reference answers, bits per byte" in page and "told: accuracy (chance 50%)" in page
    assert "mine: bits per byte" in page and "blimp: accuracy (chance 50%)" in page
    assert str(tmp_path / "out" / "tasks" / "data") in (tmp_path / "out" / "tasks" / "blimp_causative.yaml").read_text()
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())["measures"]
    assert comparison["tasks"]["blimp"]["acc"]["models"]["ours"]["n"] == 6
    assert list(comparison["tasks"]) == ["blimp"]
    chat, pairs = comparison["chats"]["asked"], comparison["pairs"]["told"]
    assert {metric: measure["unit"] for metric, measure in (chat | pairs).items()} == {
        "ends": "share",
        "format": "share",
        "all": "share",
        "reward": "score",
        "bits per byte": "bits per byte",
        "accuracy": "share",
        "margin": "nats",
    }
    for kind, name in (("chats", "asked"), ("pairs", "told")):
        for metric, measure in comparison[kind][name].items():
            for model, figure in measure["models"].items():
                assert figure["value"] == pytest.approx(figures[model][kind][name][metric]["value"])
    assert "chance" not in pairs["margin"]["models"]["ours"]
    text = comparison["texts"]["mine"]["bits per byte"]["models"]["stock"]
    own = figures["stock"]["texts"]["mine"]["bits per byte"]
    assert text == pytest.approx({key: own[key] for key in ("value", "stderr", "n", "unit")})

    capsys.readouterr()
    evaluate.main(["--compare", str(tmp_path / "out"), "--output_dir", str(tmp_path / "compared")])
    printed = capsys.readouterr().out
    assert "ours → stock" in printed and f"compare: wrote {tmp_path / 'compared'}" in printed
    assert (tmp_path / "compared" / "comparison.json").read_text() == (tmp_path / "out" / "comparison.json").read_text()
    shutil.copytree(tmp_path / "out", tmp_path / "again")
    folders = [str(tmp_path / name) for name in ("out", "again", "both")]
    evaluate.main(["--compare", *folders[:2], "--output_dir", folders[2]])
    both = json.loads((tmp_path / "both" / "comparison.json").read_text())
    assert len(both["measures"]["tasks"]["blimp"]["acc"]["models"]) == 4


def test_measures_can_be_left_out(world, tmp_path):
    output = tmp_path / "evaluate"
    evaluate.main(arguments(world, output))
    row = results_of(output)["models"]["base"]
    assert list(row["figures"]) == ["data"] and list(row["seconds"]) == ["data"]
    assert not (output / "tasks").exists()


@pytest.fixture
def broken(world, tmp_path):
    """A copy of the world to spoil."""
    shutil.copytree(world, tmp_path / "world")
    return tmp_path / "world"


def check_refusal(world, output, key, *facts, **options):
    with refused(key, *facts):
        evaluate.main(arguments(world, output, **options))
    assert not output.exists() and not output.with_name(output.name + ".partial").exists()


def test_refuses_a_missing_model(broken, tmp_path):
    shutil.rmtree(broken / "sft")
    check_refusal(broken, tmp_path / "out", "models.sft", broken / "sft", "no such folder", "run `scratch sft`")


def test_refuses_a_folder_without_a_model(broken, tmp_path):
    (broken / "sft" / "config.json").unlink()
    check_refusal(broken, tmp_path / "out", "models.sft", "no config.json")


def test_refuses_another_tokenizer(broken, tmp_path):
    ScratchTokenizer.train(TEXTS, vocab_size=270).save(broken / "sft")
    check_refusal(broken, tmp_path / "out", "models.sft", "tokenizer", "shards")


def test_refuses_a_vocabulary_larger_than_the_embedding(broken, tmp_path):
    save_model(broken / "sft", broken / "tokenizer", 0, vocab_size=200)
    check_refusal(broken, tmp_path / "out", "models.sft", 280, 200)


def test_refuses_missing_records_and_tasks(broken, tmp_path):
    (broken / "data" / "tasks" / "which_body.jsonl").unlink()
    check_refusal(broken, tmp_path / "out", "tasks", "which_body.jsonl", "missing", tasks="[which_body]")
    (broken / "data" / "preferences" / "validation.jsonl").unlink()
    check_refusal(broken, tmp_path / "out", "pairs.preferences", "validation.jsonl", "no such file", **of_data(broken))


def test_refuses_a_foreign_tokenizer_on_prepared_data(broken, stock, tmp_path):
    check_refusal(broken, tmp_path / "out", "models.gpt2", "'data'", "'texts'", models=f"{{gpt2: {stock}}}")


@pytest.mark.parametrize(
    "options, key, facts",
    [
        ({}, "data", ["nothing to measure", "'texts', 'chats', 'pairs' or 'tasks'"]),
        ({"models": "{}", "texts": "{a: a.txt}"}, "models", ["at least one"]),
        ({"chats": "{c: {file: gone.jsonl}}"}, "chats.c.file", ["no such file", "gone.jsonl"]),
        ({"chats": "{c: {}}"}, "chats.c.file", ["is missing"]),
        ({"chats": "{c: {file: asked.jsonl, reward_model: model}}"}, "chats.c.reward_model", ["is a language model"]),
        ({"chats": "{c: {file: asked.jsonl, rewards: [number]}}"}, "chats.c.rewards", ["number", "column answer"]),
        ({"chats": "{c: {file: asked.jsonl}}", "context": 90}, "max_new_tokens", [160, "'chats.c'", "models.m"]),
        ({"chats": "{c: {file: asked.jsonl}}", "limits.chats": 0}, "limits.chats", ["at least 1", 0]),
        ({"texts": "{a: a.txt}", "limits.pairs": 0}, "limits.pairs", ["at least 1", 0]),
        ({"tasks": "[arc]", "limits.tasks": 0}, "limits.tasks", ["at least 1", 0]),
        ({"texts": "{a: a.txt}", "batch_size": 0}, "batch_size", ["at least 1", 0]),
        ({"texts": "{a: a.txt}", "max_new_tokens": 0}, "max_new_tokens", ["at least 1", 0]),
        ({"texts": "{a: a.txt}", "context": 0}, "context", ["at least 1", 0]),
        ({"pairs": "{p: asked.jsonl}"}, "pairs.p", ["asked.jsonl", "instruction, output, pattern"]),
        ({"pairs": "{p: pairs.jsonl}", "context": 20}, "pairs.p", ["no pair fits", "model", "models.m", 20]),
        ({"texts": "{a: gone.txt}"}, "texts.a", ["no such file or folder", "gone.txt"]),
        ({"tasks": "[arc]", "data_dir": "gone"}, "data_dir", ["no such folder", "gone"]),
        ({"tasks": "[arc]", "data_dir": "."}, "data_dir", ["arc_easy.jsonl or arc_easy.jsonl.gz"]),
        ({"tasks": "[piqa]"}, "tasks", ["piqa", "the Hub cannot be reached", "'data_dir'"]),
        ({"texts": "{a: a.txt}", "num_fewshot": 3}, "num_fewshot", ["no effect without 'tasks'"]),
        ({"tasks": "[blimp]", "num_fewshot": -1}, "num_fewshot", ["at least 0", -1]),
        ({"tasks": "[blimp]", "fewshot_seeds": "[1, 1]"}, "fewshot_seeds", ["twice"]),
        ({"tasks": "[blimp]", "apply_chat_template": "true"}, "apply_chat_template", ["no chat template", "false"]),
        ({"texts": "{a: a.txt}", "models": "{m: some/where}"}, "models.m", ["no tokenizer at some/where"]),
    ],
)
def test_refuses_what_it_cannot_do(world, tmp_path, monkeypatch, options, key, facts):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("some text")
    for file in ("asked.jsonl", "pairs.jsonl"):
        shutil.copy(world / file, tmp_path)
    shutil.copytree(world / "sft", "model")
    if "apply_chat_template" in options:
        Path("model/chat_template.jinja").unlink(missing_ok=True)
    options = {"output_dir": "out", "models": "{m: model}"} | options
    with refused(key, *facts):
        evaluate.main([part for key, value in options.items() for part in (f"--{key}", str(value))])
    assert not Path("out").exists() and not Path("out.partial").exists()


def test_the_quickstart_recipe_parses():
    path = Path(__file__).parents[2] / "recipes" / "quickstart" / "evaluate.yaml"
    config = build(evaluate.EvaluateConfig, read_yaml(path), str(path))
    assert list(config.models) == ["base", "sft", "dpo"] and config.limits.chats == 200
    assert config.limits.pairs == 600 and config.chats["functions"].rewards == ["parses", "defines"]
