"""Inputs of `scratch prepare`: a small tokenizer, sources, a recipe."""

import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def save_tokenizer(folder: Path, chat: bool = True) -> Path:
    """Byte-level with a few merges, and the special tokens of the house."""
    special = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    merges = [("r", "e"), ("d", "e"), ("re", "t")]
    tokens = special + sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(merge) for merge in merges]
    backend = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|pad|>")
    if chat:
        tokenizer.chat_template = (
            "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        )
    tokenizer.save_pretrained(folder)
    return folder


def function(number: int) -> str:
    name = "".join("abcdefghij"[int(digit)] for digit in f"{number:03}")
    return (
        f'def {name}_up({name}):\n    """Add {number} to the {name} that is given."""\n'
        f"    {name} += {number}\n    return {name}\n"
    )


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def write_source(folder, name, count, seed):
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choices("abcdefghij", k=5)) for _ in range(500)]
    texts = [name + " " + " ".join(draw.choices(vocabulary, k=20)) + "." for _ in range(count)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def recipe(place, sources, **data):
    content = {
        "output_dir": str(place / "out"),
        "tokenizer": str(place / "tokenizer"),
        "data": {"sources": sources, "validation_fraction": 0.1} | data,
    }
    (place / "prepare.yaml").write_text(json.dumps(content))
    return ["--config", str(place / "prepare.yaml")]


def source(place, name, **options):
    return {"path": str(place / f"{name}.jsonl")} | options
