"""reward, grpo, rloo, kto, orpo and the losses of dpo as stages, on a model of two layers."""

import contextlib
import json
import math
import re
from dataclasses import fields

import huggingface_hub
import pytest
import torch
import trl
from safetensors.torch import load_file, save_file
from tiny_stages import TRAINING, VOCAB_SIZE, flags, write_data, write_model, write_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from training.commands import dpo, grpo, kto, orpo, reward, rloo
from training.common.errors import UserError
from training.model_io.conversations import encode_conversation
from training.stages.provenance import read_provenance
from training.tuning.dataset_formats import NUMBER
from training.tuning.grpo import known_losses
from training.tuning.online_rl import batch_defaults

GENERATION = {"num_generations": 4, "per_device_train_batch_size": 4, "max_completion_length": 6, "logging_steps": 1}
ADAPTER = {"use_peft": "true", "lora_r": 4, "lora_target_modules": "all-linear"}


pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    place = tmp_path_factory.mktemp("outputs")
    write_data(place / "data", write_tokenizer(place / "tokenizer"))
    write_model(place / "pretrain", place / "tokenizer")
    prompts = [{"prompt": [{"role": "user", "content": f"{n} + {n} ="}], "answer": 2 * n} for n in range(8)]
    write(place / "prompts.jsonl", prompts)
    pairs = [json.loads(line) for line in (place / "data" / "preferences" / "train.jsonl").read_text().splitlines()]
    labelled = [(pair["chosen"], True) for pair in pairs] + [(pair["rejected"], False) for pair in pairs]
    write(
        place / "labelled.jsonl",
        [{"prompt": pairs[0]["prompt"], "completion": words, "label": good} for words, good in labelled],
    )
    return place


def write(file, records) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def run(stage, file: str = "data/preferences/train.jsonl", **options: object) -> None:
    required = {
        "model_name_or_path": "pretrain",
        "output_dir": "new",
        "datasets": json.dumps([{"path": "json", "data_files": {"train": file}}]),
        "trust_remote_code": "true",
        "gradient_checkpointing": "false",
    }
    stage.main(flags(required | TRAINING | {"learning_rate": "1e-2", "logging_steps": 1} | options))


def lines(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def refusal(stage, *arguments: object, **options: object) -> str:
    with pytest.raises(UserError) as told:
        run(stage, *arguments, **options)
    return str(told.value)


# -- rewards of a recipe, for the tests ----------------------------------------------------------------------------

SEEN = []
SAMPLED = []


def mentions_the(completions, answer, **columns):
    SEEN.extend(zip(columns[NUMBER], answer, strict=True))
    return [float("the" in words[0]["content"]) - 0.01 * len(words[0]["content"]) for words in completions]


def keeps_ids(completions, completion_ids, **_):
    SAMPLED.extend(completion_ids)
    return [0.0] * len(completions)


def no_number_in_the_end(completions, trainer_state, **_):
    return [math.nan if trainer_state.global_step else 0.0] * len(completions)


# -- the reward model ----------------------------------------------------------------------------------------------


def held_out(**options: object) -> None:
    run(reward, **({"max_steps": 30, "test_split_size": 0.25, "eval_strategy": "epoch"} | options))


def test_a_reward_model_prefers_what_it_was_taught(place, capsys):
    records = lines(place / "data" / "preferences" / "train.jsonl")
    held_out()
    told = capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained("new")
    model = AutoModelForSequenceClassification.from_pretrained("new", trust_remote_code=True).eval()
    assert model.config.num_labels == 1 and model.config.pad_token_id == tokenizer.pad_token_id

    def score(pair: dict, answer: str) -> float:
        ids = tokenizer.apply_chat_template(pair["prompt"] + pair[answer], return_tensors="pt", return_dict=True)
        return model(**ids).logits.item()

    assert sum(score(pair, "chosen") > score(pair, "rejected") for pair in records) >= len(records) - 1
    figure = read_provenance("new")["metrics"]["accuracy"]
    assert figure["n"] == 2 and figure["chance"] == 0.5 and f"accuracy {figure['value']:.1%} ±" in told
    assert any("eval_accuracy" in record for record in lines(place / "new" / "metrics.jsonl"))


def test_the_accuracy_is_of_every_held_out_pair(place):
    """TRL's own figure is the mean of batches, in which a smaller last one counts as much as the others."""
    from training.tuning.reward_model import ScratchRewardTrainer

    seen = []
    after_training = ScratchRewardTrainer.after_training

    def again(self, folder):
        figures, files = after_training(self, folder)
        for pair in self.eval_dataset:  # each by itself: no padding
            ids = [torch.tensor([pair[key]]) for key in ("chosen_ids", "rejected_ids")]
            with torch.no_grad():
                chosen, rejected = (self.model(i).logits.item() for i in ids)
            seen.append(chosen > rejected)
        return figures, files

    ScratchRewardTrainer.after_training = again
    try:
        held_out(max_steps=1, test_split_size=0.4, per_device_eval_batch_size=2)
    finally:
        ScratchRewardTrainer.after_training = after_training
    figure = read_provenance("new")["metrics"]["accuracy"]
    assert len(seen) == figure["n"] == 3 and figure["value"] == pytest.approx(sum(seen) / 3)


def test_a_reward_model_by_an_adapter(place):
    held_out(max_steps=2, **ADAPTER)
    assert read_provenance("new")["metrics"]["accuracy"]["n"] == 2
    assert json.loads((place / "new" / "adapter" / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
    assert AutoModelForSequenceClassification.from_pretrained("new", trust_remote_code=True).score.weight.abs().sum()
    card = (place / "new" / "adapter" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("FOLDER_OR_NAME_OF_THIS", "new/adapter")
    names: dict = {}
    exec(code, names)
    merged = AutoModelForSequenceClassification.from_pretrained("new").eval()
    ids = torch.arange(5)[None]
    assert torch.allclose(names["model"].eval()(ids).logits, merged(ids).logits, atol=1e-5)


def test_pairs_that_are_too_long(place, capsys):
    pairs = lines(place / "data" / "preferences" / "train.jsonl")
    pairs[2]["rejected"][0]["content"] *= 4
    write(place / "pairs.jsonl", pairs)
    tokenizer = AutoTokenizer.from_pretrained("pretrain")
    lengths = [
        max(
            len(tokenizer.apply_chat_template(pair["prompt"] + pair[key])["input_ids"])
            for key in ("chosen", "rejected")
        )
        for pair in pairs
    ]
    longest = sorted(lengths)[-2]
    run(reward, "pairs.jsonl", max_length=longest)
    told = capsys.readouterr().out
    assert f"reward: train: 1 of 7 pairs exceed max_length {longest} and are dropped" in told
    assert "reward: no pairs are held out" in told
    assert "no pair of train fits in 4 tokens" in refusal(reward, output_dir="other", max_length=4)
    assert "exceed the model's 128 positions" in refusal(reward, "pairs.jsonl", output_dir="other")
    unused = refusal(reward, output_dir="other", test_split_size=0.25)
    assert unused.endswith("'test_split_size' has no effect without evaluation; add eval_strategy: epoch")
    assert not (place / "other").exists()


# -- reinforcement -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [grpo, rloo], ids=["grpo", "rloo"])
def test_reinforcement_keeps_what_it_saw(place, stage):
    SEEN.clear()
    name = f"{__name__}.mentions_the"
    run(stage, "prompts.jsonl", reward_funcs=f"[{name}, number]", beta=0.1, **GENERATION)
    assert SEEN and all(answer == 2 * (record - 1) for record, answer in SEEN)
    before, after = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in ("pretrain", "new"))
    assert any(not torch.equal(before[key], after[key]) for key in before)

    logged = [record for record in lines(place / "new" / "metrics.jsonl") if "reward" in record]
    assert [record["step"] for record in logged] == [1, 2]
    wanted = {"kl", "reward", "rewards/mentions_the/mean", "rewards/number/mean", "completions/mean_length"}
    assert all(wanted <= record.keys() for record in logged)
    assert logged[0]["kl"] == pytest.approx(0, abs=1e-4) and logged[1]["kl"] > 0
    samples = lines(place / "new" / "samples.jsonl")
    assert [sample["step"] for sample in samples] == [1] * 4 + [2] * 4
    for record in logged:
        mine = [s["rewards/mentions_the"] for s in samples if s["step"] == record["step"]]
        assert sum(mine) / 4 == pytest.approx(record["rewards/mentions_the/mean"], abs=1e-5)
    for sample in samples:
        assert sample["prompt"][0]["role"] == "user" and sample["rewards/number"] in (0, 1)
        words = sample["completion"][0]["content"]
        assert sample["rewards/mentions_the"] == pytest.approx(("the" in words) - 0.01 * len(words), abs=1e-5)
    assert (place / "new" / "reward.png").stat().st_size > 5000
    figures = read_provenance("new")["metrics"]
    assert figures["reward"] == logged[1]["reward"] and figures["kl"] == logged[1]["kl"]


@pytest.mark.parametrize("stage", [grpo, rloo], ids=["grpo", "rloo"])
def test_rows_without_a_token_are_not_sampled(place, stage):
    """Even where they are by far the likeliest: rows beyond the tokenizer, to which the vocabulary was rounded up."""
    model = write_model(place / "padded", place / "tokenizer", dials={"vocab_size": VOCAB_SIZE + 40})
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"][VOCAB_SIZE:] *= 100
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    SAMPLED.clear()
    options = {"model_name_or_path": "padded", "reward_funcs": f"[{__name__}.keeps_ids]", "max_steps": 1}
    run(stage, "prompts.jsonl", **GENERATION | options)
    assert len(SAMPLED) == 4 and all(0 <= token < VOCAB_SIZE for ids in SAMPLED for token in ids)


def test_reinforcement_on_a_stream(place):
    run(grpo, "prompts.jsonl", streaming="true", reward_funcs="[number]", **GENERATION)
    assert len(lines(place / "new" / "samples.jsonl")) == 8


def test_without_a_price_on_kl_there_is_no_picture_of_it(place):
    run(grpo, "prompts.jsonl", reward_funcs="[number]", log_completions="true", **GENERATION)
    names = {path.name for path in (place / "new").iterdir()}
    assert "samples.jsonl" in names and not names & {"reward.png", "completions", "samples", "trainer"}


def test_a_run_without_logged_steps(place, capsys):
    """The model is kept, though no answer was sampled for reading."""
    run(grpo, "prompts.jsonl", reward_funcs="[number]", **GENERATION | {"logging_strategy": "no"})
    printed = capsys.readouterr().out
    assert AutoModelForCausalLM.from_pretrained("new")
    for name in ("samples.jsonl", "loss.png"):
        assert name not in printed and not (place / "new" / name).exists()
    assert (place / "new" / "metrics.jsonl").is_file() and "reward" in read_provenance("new")["metrics"]


def test_what_fails_after_training_does_not_cost_the_weights(place, monkeypatch):
    def fail(*_):
        raise OSError("no room for a picture")

    monkeypatch.setattr("training.tuning.online_rl.draw_reward", fail)
    with pytest.raises(OSError, match="no room for a picture"):
        run(grpo, "prompts.jsonl", reward_funcs="[number]", beta=0.1, **GENERATION | {"max_steps": 1})
    assert AutoModelForCausalLM.from_pretrained("new.partial") and not (place / "new").exists()
    assert [record["step"] for record in lines(place / "new.partial" / "metrics.jsonl")] == [1, 1]


def test_a_reward_model_rewards(place):
    held_out(output_dir="scorer", max_steps=2)
    write(place / "prompts.jsonl", [{"prompt": [{"role": "user", "content": "Where<|im_end|>?"}]}] * 8)
    run(grpo, "prompts.jsonl", reward_model_name_or_path="scorer", **ADAPTER, **GENERATION)
    record = read_provenance("new")
    assert record["inputs"]["reward_model"] == read_provenance("scorer")["fingerprint"]
    tokenizer = AutoTokenizer.from_pretrained("scorer")
    model = AutoModelForSequenceClassification.from_pretrained("scorer").eval()
    for sample in lines(place / "new" / "samples.jsonl"):
        ids = encode_conversation(tokenizer, sample["prompt"] + sample["completion"]).ids
        with torch.no_grad():
            assert model(torch.tensor([ids])).logits.item() == pytest.approx(sample["rewards/scorer"], abs=1e-4)

    model.score.weight.data[:] = math.nan
    model.save_pretrained("scorer")
    message = refusal(grpo, "prompts.jsonl", output_dir="other", reward_model_name_or_path="scorer", **GENERATION)
    assert re.fullmatch(
        r"'reward_model_name_or_path': scorer gave nan on record \d of the data; a reward must be finite", message
    )


def test_an_interrupted_reinforcement_goes_on(place, monkeypatch):
    from transformers import Trainer

    options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "reward_funcs": f"[{__name__}.mentions_the]"}
    run(grpo, "prompts.jsonl", output_dir="straight", **GENERATION | options)
    save = Trainer._save_checkpoint

    def die_in_the_second(self, *rest):
        save(self, *rest)
        if self.state.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", die_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            run(grpo, "prompts.jsonl", **GENERATION | options)
    run(grpo, "prompts.jsonl", **GENERATION | options)
    assert lines(place / "new" / "samples.jsonl") == lines(place / "straight" / "samples.jsonl")
    after, straight = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in ("new", "straight"))
    assert all(torch.equal(after[key], straight[key]) for key in after)


def test_a_reward_that_is_no_number(place):
    message = refusal(grpo, "prompts.jsonl", reward_funcs=f"[{__name__}.no_number_in_the_end]", **GENERATION)
    assert re.search(r"no_number_in_the_end gave nan on record \d of the data, completion '", message)
    assert not (place / "new").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "'reward_funcs' is missing (a list such as [number]; or reward_model_name_or_path)"),
        ({"reward_funcs": "[doctest]"}, "doctest needs the column tests; 'datasets' have prompt, answer"),
        ({"reward_funcs": "[numbr]"}, "no reward 'numbr'; did you mean 'number'?"),
        ({"reward_model_name_or_path": "pretrain"}, "pretrain is a language model, not a reward model; train"),
        ({"reward_funcs": "[number]", "num_generations": 3}, "generation_batch_size"),
        (
            {"reward_model_name_or_path": "./scorer"},
            "'reward_model_name_or_path': scorer: no such folder; run `scratch rew",
        ),
        ({"reward_model_name_or_path": "some/scorer"}, "'reward_model_name_or_path': no model at some/scorer ("),
        ({"reward_funcs": "[number]", "loss_type": "dapa"}, "'loss_type': no 'dapa'; did you mean 'dapo'?"),
        ({"reward_funcs": "[number]", "scale_rewards": "grop"}, "'scale_rewards': no 'grop'; did you mean 'group'?"),
        ({"reward_funcs": "[number]", "use_vllm": "true"}, "'use_vllm': vllm is not installed"),
        (
            {"reward_funcs": "[number]", "max_completion_length": 120},
            "'max_completion_length': 8 prompts of train, with completions of 120 tokens, exceed the model's 128 ",
        ),
    ],
)
def test_what_is_known_before_training(place, monkeypatch, options, message):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert message in refusal(grpo, "prompts.jsonl", **GENERATION | options)
    assert not (place / "new").exists() and not (place / "new.partial").exists()


# -- preferences ---------------------------------------------------------------------------------------------------


def losses() -> list[str]:
    (field,) = (field for field in fields(trl.DPOConfig) if field.name == "loss_type")
    return re.findall(r"`'(\w+)'`", field.metadata["help"])


def test_trl_lists_its_losses():
    assert len(losses()) > 10 and "sigmoid" in losses()
    assert {"dapo", "grpo", "vespo"} <= set(known_losses()) and "sequence" not in known_losses()


def test_every_loss_that_trl_lists(place):
    """All of them added up, which takes the time of one: each is finite, and its gradient too, or the sum is not."""
    weights = {"loss_weights": json.dumps([1.0] * len(losses())), "label_smoothing": 1e-3, "max_grad_norm": 1e9}
    run(dpo, loss_type=json.dumps(losses()), **weights)
    logged = [record for record in lines(place / "new" / "metrics.jsonl") if "loss" in record]
    assert len(logged) == 2 and all(math.isfinite(record["loss"] + record["grad_norm"]) for record in logged)


def test_losses_that_are_refused(place):
    assert "Label smoothing must be greater than 0.0" in refusal(dpo, loss_type="exo_pair")
    assert "no loss 'sigmoyd'; did you mean 'sigmoid'?" in refusal(dpo, loss_type="sigmoyd")
    assert "no loss 'simpo'" in refusal(dpo, loss_type="[sigmoid, simpo]")
    assert not (place / "new").exists() and not (place / "new.partial").exists()


def test_kto(place):
    run(kto, "labelled.jsonl")
    assert {"loss", "kl"} <= lines(place / "new" / "metrics.jsonl")[0].keys()
    write(place / "labelled.jsonl", [{"prompt": "a", "completion": "b", "label": 1}])
    assert refusal(kto, "labelled.jsonl", restart="true").endswith("record 1: 'label' is neither true nor false")


def test_orpo(place):
    run(orpo)
    assert {"loss", "rewards/accuracies"} <= lines(place / "new" / "metrics.jsonl")[0].keys()


@pytest.mark.parametrize("config", [trl.GRPOConfig, trl.RLOOConfig])
@pytest.mark.parametrize(
    "key", ["num_generations", "per_device_train_batch_size", "generation_batch_size", "gradient_accumulation_steps"]
)
def test_a_key_of_the_batch_alone_fits_the_others(config, key):
    """As TRL checks it. What fits already stays."""
    defaults = {field.name: field.default for field in fields(config)}
    for number in (2, 3, 5, 8, 12, 16, 24):
        given = {key: number}
        follows = batch_defaults(given, defaults, processes=1)
        plain = {"output_dir": "out", "use_cpu": True, "bf16": False, "report_to": "none", "eval_strategy": "steps"}
        made = config(**plain, eval_steps=1, **given, **follows)
        assert getattr(made, key) == number and made.per_device_train_batch_size <= max(8, number)
        with contextlib.suppress(ValueError):
            config(**plain, eval_steps=1, **given)
            assert not follows
    assert batch_defaults({"num_generations": 8, "per_device_train_batch_size": 16}, defaults, 2) == {}
