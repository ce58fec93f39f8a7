"""Outputs of stages, small enough for a test and made without running the stages."""

import json
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState
from tiny_model import stir
from transformers import PreTrainedTokenizerFast

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.data.shards import write_manifest, write_shard
from training.model_io.model_folder import save_model, special_token_ids
from training.stages.provenance import digest
from training.stages.stage import Stage

WORDS = "the cat sat on a mat and looked at another cat that sat under another table".split()
LINES = [" ".join(WORDS[number % 7 :]) + f" {number % 10}" for number in range(300)]
VOCAB_SIZE = 280
MODEL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}
TRAINING = {"max_steps": 2, "per_device_train_batch_size": 2, "bf16": "false", "use_cpu": "true", "save_strategy": "no"}


def write_text(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(LINES) + "\n")
    return file


def write_tokenizer(folder: Path) -> Path:
    stage = Stage("tokenizer", str(folder), {}, {}, [])
    ScratchTokenizer.train(LINES, VOCAB_SIZE).save(stage.begin())
    stage.finish({}, wrote="tokenizer")
    return folder


def write_data(folder: Path, tokenizer: Path) -> Path:
    """Shards, and a few records for sft and dpo."""
    stage = Stage("prepare", str(folder), {}, {}, [])
    work, encoder, splits = stage.begin(), ScratchTokenizer.load(tokenizer), {}
    for split, lines in {"train": LINES[:240], "validation": LINES[240:]}.items():
        ids = [[*encoder.encode(line), 0] for line in lines]
        splits[split] = write_shard(work, split, ids, VOCAB_SIZE, "tokenizer")
        splits[split]["bytes"] = sum(len(line) for line in lines)
    write_manifest(work, splits, tokenizer, VOCAB_SIZE, {})
    question = [{"role": "user", "content": "Where is the cat?"}]
    answers = [[{"role": "assistant", "content": line}] for line in LINES[:8]]
    records = {
        "instructions": [{"messages": question + answer} for answer in answers],
        "preferences": [{"prompt": question, "chosen": answer, "rejected": answers[0]} for answer in answers[1:]],
    }
    for kind, rows in records.items():
        (work / kind).mkdir()
        (work / kind / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage.finish({}, wrote="shards")
    return folder


def write_model(
    folder: Path,
    tokenizer: Path,
    stage: str = "pretrain",
    preset: str = "qwen3",
    dials: dict | None = None,
    **recipe: str,
) -> Path:
    """A model directory as the named stage leaves it, with digests of what its recipe names and is there."""
    words = [f"--{key}={value}" for key, value in recipe.items()]
    stage = Stage(stage, str(folder), recipe, inputs_of(recipe), [*words, "--restart"])  # replaces what is there
    torch.manual_seed(0)
    ids = special_token_ids(PreTrainedTokenizerFast.from_pretrained(tokenizer))
    config = ScratchConfig.from_preset(preset, **(ids | MODEL | {"vocab_size": VOCAB_SIZE} | (dials or {})))
    model = stir(ScratchForCausalLM(config))
    save_model(model, tokenizer, stage.begin())
    stage.finish({"loss": 1.0}, wrote="model")
    return folder


def inputs_of(recipe: dict) -> dict[str, str]:
    """The digests as the stages record them: of the model, the corpora and the files of records."""
    data, paths = recipe.get("data", {}), {"model": recipe.get("model_name_or_path") or recipe.get("model")}
    paths |= {"data": data} if isinstance(data, str) else {f"data.{folder}": folder for folder in data}
    for entry in recipe.get("datasets", ()):
        named = entry.get("data_files", {}).get("train", [])
        paths |= {path: path for path in (entry["path"], *([named] if isinstance(named, str) else named))}
    return {key: digest(path) for key, path in paths.items() if path and Path(path).exists()}


def forget_accelerate() -> None:
    """What Accelerate keeps for the life of a process, which is one stage in use and many in the tests."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()  # a loader that was interrupted would end every accumulation early


def flags(options: dict[str, object]) -> list[str]:
    return [f"--{key}={value}" for key, value in options.items()]
