"""`scratch report`: tables and a picture from whatever stages of a run are there."""

import json
import shutil

import pytest
from faults import disk_fills_in_a_picture
from provenance import write_provenance

from training.commands.report import main
from training.common.errors import UserError
from training.eval.measures.figures import Figure, MetricKey
from training.eval.results.results_file import ModelResults, Results
from training.eval.results.summary import write_summary

SECONDS = {"tokenizer": 30, "prepare": 60, "pretrain": 300, "sft": 90, "dpo": 60, "evaluate": 84}


BITS = ("data", "validation", "bits per byte")


def share(value, chance=None):
    return Figure(value, 0.03, 200, chance)


def model(bits, good, preferred):
    return of(
        {
            BITS: Figure(bits, 0.01, 9, unit="bits per byte"),
            **{("chats", "functions", check): share(good) for check in ("ends", "parses", "defines", "all")},
            ("pairs", "preferences", "accuracy"): share(preferred, 0.5),
            ("tasks", "scratch_body_choice", "acc"): share(0.4, 0.25),
            ("tasks", "scratch_body_choice", "acc_norm"): share(0.5, 0.25),
        }
    )


def of(figures):
    found = ModelResults("somewhere", 10, figures={MetricKey(*key): figure for key, figure in figures.items()})
    found.samples["functions"] = [{"prompt": "p", "answer": "a"}]
    return found


def make_run(run_dir, stages, models=None):
    for stage in stages:
        folder = run_dir / ("data" if stage == "prepare" else stage)
        folder.mkdir(parents=True)
        write_provenance(folder, stage, seconds=SECONDS[stage], versions={"torch": "2.13.0"})
    if "pretrain" in stages:
        lines = [{"step": n, "tokens": 100 * n, "loss": 8 / n} for n in range(1, 20)]
        lines += [{"step": 20, "tokens": 2000, "validation_loss": 1.234}]
        (run_dir / "pretrain" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if models:
        Results({}, models).write(run_dir / "evaluate")
    return run_dir


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_a_whole_run(tmp_path):
    models = {"base": model(1.5, 0.0, 0.6), "sft": model(1.6, 0.7, 0.65), "dpo": model(1.61, 0.71, 0.8)}
    run = make_run(tmp_path / "run", SECONDS, models)
    text = write_summary(run).text

    gained, minutes = (part.splitlines() for part in text.split("Time\n"))
    assert [line.split()[:3] for line in gained if "±" in line] == [
        ["base", "1.500", "0.0"],
        ["sft", "1.600", "70.0"],
        ["dpo", "1.610", "71.0"],
    ]
    assert ["evaluate", "1.4"] in [line.split() for line in minutes]
    assert minutes[-1].split() == ["together", "10.4"]
    assert max(map(len, text.splitlines())) <= 110

    page = (run / "summary.md").read_text()
    assert "| dpo | 1.610 | 71.0 ± 3.0 |" in page and "body_choice: accuracy (chance 25%)" in page
    assert "preferences: accuracy (chance 50%)" in page and "![Summary](summary.png)" in page
    summary = json.loads((run / "summary.json").read_text())
    assert summary["seconds"] == SECONDS and list(summary["models"]) == ["base", "sft", "dpo"]
    assert summary["models"]["sft"]["figures"]["chats"]["functions"]["parses"]["value"] == 0.7
    assert "samples" not in summary["models"]["sft"]
    assert is_picture(run / "summary.png")


def test_pretraining_alone(tmp_path):
    run = make_run(tmp_path / "run", ["tokenizer", "prepare", "pretrain"])
    text = write_summary(run).text
    assert "1.234" in text and "sft" not in text
    assert is_picture(run / "summary.png")
    (run / "pretrain").rename(run / "base")  # a stage is known by its record, not by the name of its folder
    (run / "summary.png").unlink()
    assert write_summary(run).files == ["summary.md", "summary.json", "summary.png"] and is_picture(run / "summary.png")


def test_a_model_measured_by_bits_per_byte_alone(tmp_path):
    models = {"base": of({BITS: Figure(2.5, None, 1, unit="bits per byte")})}
    run = make_run(tmp_path / "run", ["pretrain", "evaluate"], models)
    assert "2.500" in write_summary(run).text
    assert is_picture(run / "summary.png")


def test_models_with_unlike_measures(tmp_path):
    """A cell without a figure is a dash, a figure without an error stands alone, what is not a share is left out."""
    lonely = of(
        {
            ("tasks", "sums", "exact_match"): Figure(0.5, None, 1),
            ("tasks", "prose", "word_perplexity"): Figure(70.0, None, 9, unit="score"),
        }
    )
    run = make_run(tmp_path / "run", ["evaluate"], {"base": model(1.5, 0.2, 0.6), "other": lonely})
    write_summary(run)
    page = (run / "summary.md").read_text()
    assert "| other | - | - | - | - | - | - | - | 50.0 |" in page
    assert "sums: exact match |" in page and "prose" not in page
    assert is_picture(run / "summary.png")


def test_a_run_before_pretraining_has_no_picture(tmp_path):
    run = make_run(tmp_path / "run", ["tokenizer"])
    assert "tokenizer" in write_summary(run).text
    assert not (run / "summary.png").exists() and "png" not in (run / "summary.md").read_text()


PERPLEXITY = ("tasks", "prose", "word_perplexity")


@pytest.mark.parametrize("figures", [{}, {PERPLEXITY: Figure(9.0, None, 9, unit="score")}])
def test_nothing_to_draw_is_not_announced(tmp_path, figures, capsys):
    """A pretraining run without a logged step, and results without a share."""
    run = make_run(tmp_path / "run", ["pretrain", "evaluate"], {"base": of(figures)})
    (run / "pretrain" / "metrics.jsonl").write_text("")
    (run / "summary.png").write_bytes(b"of an earlier run")
    main([str(run)])
    assert "png" not in capsys.readouterr().out + (run / "summary.md").read_text()
    assert not (run / "summary.png").exists()


def test_unfinished_stages_are_not_counted(tmp_path):
    run = make_run(tmp_path / "run", ["tokenizer", "prepare"])
    for suffix in (".partial", ".replaced"):
        shutil.copytree(run / "data", run / f"data{suffix}")
    shutil.rmtree(run / "data")
    assert "prepare" not in write_summary(run).text


def test_a_full_disk_leaves_the_last_summary(tmp_path):
    run = make_run(tmp_path / "run", ["pretrain"])
    write_summary(run)
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with disk_fills_in_a_picture(), pytest.raises(OSError):
        write_summary(run)
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_the_verb(tmp_path, capsys):
    run = make_run(tmp_path / "run", ["tokenizer"])
    main([str(run)])
    assert "minutes" in capsys.readouterr().out
    with pytest.raises(UserError, match="no such folder"):
        main([str(tmp_path / "nothing")])
    with pytest.raises(UserError, match="no stage has finished"):
        main([str(tmp_path)])
    with pytest.raises(UserError, match="'run_dir' is missing"):
        main([])
