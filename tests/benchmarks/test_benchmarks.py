"""The benchmarks run, and their last line is the JSON that they promise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_stages import write_model, write_tokenizer

from benchmarks import serving
from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.serving.engine import Engine

ROOT = Path(__file__).parents[2]
TINY = ["--vocab-size=64", "--hidden-size=32", "--layers=1", "--heads=2", "--kv-heads=2", "--seq=16", "--batch=2"]
TINY += ["--rounds=2", "--steps=1", "--prompt=4", "--new-tokens=4", "--matmul-size=64"]


def run(*arguments):
    """Output of `python -m benchmarks...` from the root of the repo."""
    command = [sys.executable, "-m", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    completed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


@pytest.fixture(scope="module")
def results():
    output = run("benchmarks.model", *TINY, "--presets", "llama", "scratch", "--dtype=fp32")
    return json.loads(output.splitlines()[-1])


@pytest.mark.release
def test_model_benchmark_reports_every_contestant(results):
    assert results["benchmark"] == "model"
    assert results["conditions"]["hidden_size"] == 32 and results["conditions"]["dtype"] == "fp32"
    contestants = {"transformers Llama", "ours, llama", "ours, scratch"}
    assert set(results["training"]) == contestants
    assert set(results["generation"]) == {"1", "8"}
    assert all(set(figures) == contestants for figures in results["generation"].values())


@pytest.mark.release
def test_model_benchmark_compares_like_with_like(results):
    baseline, ours = results["training"]["transformers Llama"], results["training"]["ours, llama"]
    assert ours["parameters"] == baseline["parameters"]
    assert baseline["ratio"] == 1 and ours["ratio"] > 0
    for figures in results["training"].values():
        assert figures["tokens_per_second"] == pytest.approx(32 / figures["step_ms"] * 1000, rel=0.05)
        assert 0 < figures["mfu"]


def test_model_benchmark_needs_only_the_model_and_torch():
    """A common GPU image has no trl, peft, datasets, evaluate or lm_eval."""
    script = """
import sys
for name in ("trl", "peft", "datasets", "evaluate", "lm_eval"):
    sys.modules[name] = None  # importing it raises
import benchmarks.model
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


@pytest.mark.release
def test_pretrain_benchmark_says_where_the_time_goes():
    options = ["--vocab-size=512", "--hidden-size=32", "--layers=1", "--heads=2", "--seq=16", "--batch=4"]
    options += ["--at-once=2", "--eval-sequences=4", "--rounds=2", "--steps=2", "--dtype=fp32"]
    results = json.loads(run("benchmarks.pretrain", *options).splitlines()[-1])
    assert results["benchmark"] == "pretrain" and results["conditions"]["parameters"] == 49280
    figures = results["training"]["eager"]
    assert figures["tokens_per_second"] == pytest.approx(64 / figures["step_ms"] * 1000, rel=0.05)
    shares = figures["shares"]
    assert all(share > 0 for share in shares.values()) and sum(shares.values()) < 1
    overhead = sum(shares[part] for part in ("loader", "logging", "evaluation", "checkpointing"))
    assert figures["overhead"] == pytest.approx(overhead, abs=1e-3) and 0 < figures["mfu"] < 1


def test_split_patterns_lose_nothing():
    from benchmarks.split_patterns import PATTERNS, learn

    text = "def f(x):\r\n    return 2024\n\n\t'é\u0301 don't "
    for patterns in PATTERNS.values():
        tokenizer = learn(patterns, [text] * 3, 300)
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.release
def test_tokenizer_benchmark_races_equals(tmp_path):
    lines = [f"the {number % 7} cats of row {number} sat under the table" for number in range(600)]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    options = [f"--data={tmp_path}/text.txt", "--merges=40", "--rounds=2", "--naive-points=3"]
    results = json.loads(run("benchmarks.tokenizer", *options).splitlines()[-1])
    assert results["benchmark"] == "tokenizer" and results["conditions"]["naive_points"] == 3
    training, encoding = results["training"], results["encoding"]
    assert training["merges"] == 40 and training["textbook_merges_timed"] == 3
    assert set(training["seconds"]) == {"ours", "textbook loop", "Rust library"}
    assert training["ours_times_as_fast_as_textbook"] > 0 and training["ours_times_the_rust_time"] > 0
    assert set(encoding["megabytes_per_second"]) == {"ours, cold", "ours, warm", "Rust library"}
    assert 0 < encoding["tokens"] < encoding["bytes"]


def test_the_textbook_loop_learns_the_same_merges():
    from benchmarks.tokenizer import naive_seconds

    text = "low lower lowest new newer newest wide wider widest " * 3
    ours = ScratchTokenizer.train([text], 300)
    total, measured = naive_seconds(ours.count_words([text]), list(ours.ranks), points=0)
    assert list(measured) == list(range(len(ours.ranks))) and total > 0
    wrong = list(ours.ranks)[::-1]
    with pytest.raises(SystemExit, match="merge 0 of the textbook loop is another than ours"):
        naive_seconds(ours.count_words([text]), wrong, points=0)


@pytest.mark.release
def test_shakespeare_benchmark_scores_the_whole_last_tenth(tmp_path):
    text = "\n".join(f"CAT {number % 7}:\nI sat upon the mat of row {number}.\n" for number in range(400))
    (tmp_path / "input.txt").write_text(text)
    tiny = ["model.hidden_size=32", "model.num_hidden_layers=1", "max_steps=2", "eval_sequences=2"]
    options = [f"--data={tmp_path}/input.txt", "--marks", "small", "--seeds", "3", "--set", *tiny]
    results = json.loads(run("benchmarks.shakespeare", *options).splitlines()[-1])
    assert results["benchmark"] == "shakespeare" and results["conditions"]["seeds"] == [3]
    small = results["results"]["small"]
    assert small["tokens"] == 2 * 12 * 64 and small["target"] == 1.88 and small["reached"] == 0
    assert 1 < small["loss"] < 5 and 0 < small["seconds"] < small["command_seconds"]


@pytest.mark.release
def test_ablation_benchmark_changes_one_thing(tmp_path):
    lines = [json.dumps({"text": f"The {number % 7} cats of row {number} sat. " * 20}) for number in range(200)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    sizes = ["--vocab-size=280", "--hidden-size=32", "--layers=1", "--heads=2", "--seq=16", "--batch=2", "--steps=2"]
    options = [f"--data={tmp_path}/text.jsonl", "--rows", "batch-half", "--seeds", "0", *sizes]
    output = run("benchmarks.ablation", *options)
    rows = json.loads(output.splitlines()[-1])["rows"]
    assert list(rows) == ["scratch", "batch-half"] and rows["scratch"]["difference_%"] == 0
    assert rows["scratch"]["bits_per_byte"] != rows["batch-half"]["bits_per_byte"]
    assert rows["scratch"]["parameters"] == rows["batch-half"]["parameters"]
    assert "| **scratch** |" in output


@pytest.mark.release
def test_classification_benchmark_has_both_yardsticks(tmp_path):
    write_model(tmp_path / "model", write_tokenizer(tmp_path / "tokenizer"))
    for split, count in {"train": 24, "validation": 8, "test": 8}.items():
        rows = [
            {"text": f"the cat {'sat' if number % 3 else 'looked'}", "label": number % 3 > 0} for number in range(count)
        ]
        (tmp_path / f"{split}.csv").write_text(
            "\n".join(["text,label", *(f"{row['text']},{row['label']}" for row in rows)])
        )
    files = [f"--{split}={tmp_path}/{split}.csv" for split in ("train", "validation", "test")]
    output = run("benchmarks.classification", f"--model={tmp_path}/model", *files, "--seeds", "3", "--epochs=1")
    rows = json.loads(output.splitlines()[-1])["rows"]
    assert list(rows) == ["pretrained", "random weights", "linear SVM on TF-IDF"]
    assert rows["pretrained"] != rows["random weights"] and rows["linear SVM on TF-IDF"]["f1"] == 1.0
    assert "always the commonest label" in output


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")
def test_serving_benchmark_counts_tokens_that_were_generated():
    model = serving.small_model(num_hidden_layers=1, max_position_embeddings=40)
    model.generation_config.eos_token_id = None
    prompts = [[9] * 32, [8] * 32]
    with Engine(model, serving.small_tokenizer()) as engine:
        for sampling in serving.SAMPLING.values():
            ways = serving.contestants(model, engine, prompts, 20, sampling)
            assert ways["one at a time"]() == ways["all at once"]() == 2 * (40 - 32)
            assert ways["generate"]() == 2 * 20  # transformers goes beyond the context


def test_sandbox_benchmark_reports_every_contestant():
    results = json.loads(run("benchmarks.sandbox", "--programs=2", "--rounds=2").splitlines()[-1])

    assert results["benchmark"] == "sandbox" and results["conditions"]["rounds"] == 2
    assert results["results"].pop("a new Python, no isolation")["ratio"] == 1
    assert all(figures["programs_per_second"] > 0 for figures in results["results"].values())


@pytest.mark.release
def test_rollouts_benchmark_compares_three_ways():
    output = run("benchmarks.rollouts", "--prompts=2", "--answers=2", "--tokens=6", "--steps=1", "--rounds=1")
    results = json.loads(output.splitlines()[-1])["results"]
    ways = {"stock", "ordinary", "ours"}
    assert set(results["that end"]) == set(results["of full length"]) == ways
    for way in ways:
        step = results[f"step, {way}"]
        assert 0 < step["generating"] < step["seconds"]
