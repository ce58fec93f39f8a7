"""The lines that a trainer prints while it works: one per logging step, in place of a Trainer's dictionaries."""

import json
import re

import pytest
from tiny_stages import TRAINING, flags, write_data, write_model, write_tokenizer
from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments

from training.commands import dpo, grpo, kto, orpo, reward, sft
from training.common.progress import TrainingProgress
from training.tuning.pipeline import progress as module
from training.tuning.pipeline.progress import MetricsFile, ProgressLines

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

RATE = r"[\d,]+ tokens/s"
NUMBER = r"-?[\d.]+(e-\d+)?"
# What stands between loss and learning rate.
FIGURES = {
    sft: r"token accuracy \d+%",
    dpo: rf"margin {NUMBER}, accuracy \d+%",
    kto: rf"(margin {NUMBER}, )?KL {NUMBER}",  # a batch of good answers alone has no margin
    orpo: rf"margin {NUMBER}, accuracy \d+%",
    reward: rf"margin {NUMBER}, accuracy \d+%",
    grpo: rf"reward {NUMBER}, KL {NUMBER}, {NUMBER} tokens per completion",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    place = tmp_path_factory.mktemp("outputs")
    write_data(place / "data", write_tokenizer(place / "tokenizer"))
    write_model(place / "pretrain", place / "tokenizer")
    (place / "labelled.jsonl").write_text('{"prompt": "the cat", "completion": " sat", "label": true}\n' * 3)
    with (place / "labelled.jsonl").open("a") as stream:
        stream.write('{"prompt": "the cat", "completion": " looked", "label": false}\n' * 3)
    (place / "prompts.jsonl").write_text('{"prompt": "the cat", "answer": 1}\n' * 8)
    return place


def run(stage, **options: object) -> None:
    files = {sft: "data/instructions/train.jsonl", kto: "labelled.jsonl", grpo: "prompts.jsonl"}
    file = files.get(stage, "data/preferences/train.jsonl")
    required = {
        "model_name_or_path": "pretrain",
        "output_dir": "new",
        "datasets": json.dumps([{"path": "json", "data_files": {"train": file}}]),
        "trust_remote_code": "true",
        "gradient_checkpointing": "false",
        "logging_steps": 1,
    }
    if stage is grpo:
        generation = {"num_generations": 2, "max_completion_length": 4, "reward_funcs": "[number]", "beta": 0.1}
        required |= generation
    stage.main(flags(required | TRAINING | options))


@pytest.mark.parametrize("stage", FIGURES, ids=lambda stage: stage.__name__.rpartition(".")[2])
def test_a_line_per_logging_step(place, capfd, stage):
    run(stage)
    printed, errors = capfd.readouterr()
    rate = r"[\d,.]+ samples/s" if stage is orpo else RATE
    pattern = rf"step (\d)/2: loss {NUMBER}, {FIGURES[stage]}, lr {NUMBER}, gradient {NUMBER}, {rate}, \d+:\d\d left"
    found = [re.fullmatch(pattern, line) for line in printed.splitlines() if line.startswith("step ")]
    assert all(found) and [line[1] for line in found] == ["1", "2"], printed
    assert "{'" not in printed + errors and "%|" not in errors  # neither dictionaries nor bars in a log


def test_a_line_per_evaluation(place, capsys):
    run(sft, test_split_size=0.25, eval_strategy="steps", eval_steps=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if "validation" in line]
    assert [bool(re.fullmatch(rf"step \d: validation loss {NUMBER}, token accuracy \d+%", line)) for line in lines] == [
        True
    ] * 2


def test_no_line_of_the_second_process(capsys, tmp_path):
    lines = ProgressLines({})
    arguments, control = TrainingArguments(str(tmp_path), use_cpu=True), TrainerControl()
    state = TrainerState(is_world_process_zero=False, max_steps=2)
    lines.on_train_begin(arguments, state, control)
    lines.on_step_end(arguments, state, control)
    lines.on_log(arguments, state, control, logs={"loss": 1.0})
    lines.on_prediction_step(arguments, state, control)
    lines.on_evaluate(arguments, state, control)
    lines.on_train_end(arguments, state, control)
    assert capsys.readouterr().out == ""


def test_a_rate_is_that_of_training(capsys, tmp_path, monkeypatch):
    """Since the last line, evaluations left out; a count that a resumed trainer starts anew is taken as it is."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    lines = ProgressLines({"reward": "reward {:.1f}"})
    arguments, control = TrainingArguments(str(tmp_path), use_cpu=True), TrainerControl()
    state = TrainerState(max_steps=20, global_step=10, num_input_tokens_seen=500)
    lines.on_train_begin(arguments, state, control)
    logs = [{"num_tokens": 700}, {"num_tokens": 1000, "reward": None}, {"num_tokens": 100}, {}]
    for number, tokens in enumerate(logs, start=11):
        clock[0] += 2
        state.global_step = number
        lines.on_log(arguments, state, control, logs={"loss": 1.0} | tokens)
        lines.on_prediction_step(arguments, state, control)
        clock[0] += 50
        lines.on_evaluate(arguments, state, control)
    rates = re.findall(r"step (\d+)/20: loss 1.000, ([\d,.]+ \w+/s), (.*) left", capsys.readouterr().out)
    assert [(step, rate) for step, rate, _ in rates] == [
        ("11", "100 tokens/s"),
        ("12", "150 tokens/s"),
        ("13", "50 tokens/s"),
        ("14", "4.0 samples/s"),  # batches of 8
    ]
    assert rates[0][2] == "0:18"  # 9 steps of 2 s


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    """It has the figures behind it, and there is no line beside."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bar = TrainingProgress(4, first=1)
    bar.advance(2)
    bar.log(2, "loss 1.000")
    bar.write("something else")
    bar.close()
    shown = capsys.readouterr()
    assert "2/4" in shown.err and "loss 1.000" in shown.err and shown.out.strip() == "something else"
    hidden = TrainingProgress(4, hide_bar=True)
    hidden.log(1, "loss 1.000")
    hidden.close()
    shown = capsys.readouterr()
    assert shown.out.startswith("step 1/4: loss 1.000, ") and "1/4" not in shown.err
    assert not isinstance(ProgressLines({}), ProgressCallback)


def test_what_is_logged_is_in_a_file_at_once(tmp_path):
    """A resumed run begins with the records of its checkpoint; a process that is not the first writes nothing."""
    file, arguments = tmp_path / "metrics.jsonl", TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    file.write_text('{"step": 3}\n')
    state, control, callback = TrainerState(log_history=[{"step": 1}]), TrainerControl(), MetricsFile(file)
    callback.on_train_begin(arguments, state, control)
    assert file.read_text() == '{"step": 1}\n'
    state.log_history += [{"step": 1, "threads": 2}, {"step": 2, "loss": float("nan")}]
    callback.on_log(arguments, state, control)
    assert file.read_text().splitlines()[1:] == ['{"step": 1, "threads": 2}', '{"step": 2, "loss": null}']
    other = TrainerState(log_history=[{"step": 9}], is_world_process_zero=False)
    MetricsFile(file).on_train_begin(arguments, other, control)
    assert file.read_text().count("\n") == 3
