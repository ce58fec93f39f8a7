"""What a reader must know to compare the figures with others, and the page that says it."""

import importlib.metadata
from typing import Any

import torch

from training.common.device import has_bf16
from training.common.tables import as_markdown


def conditions(config: Any, device: torch.device) -> dict[str, Any]:
    """Those of an evaluation, from its `EvaluateConfig`; counts stand beside each figure."""
    packages = ["torch", "transformers", *(["lm_eval"] if config.tasks else [])]
    found: dict[str, Any] = {
        "data": config.data,
        "device": device.type,
        "precision": "bfloat16 autocast (bits per byte, preferences, pairs), bfloat16 (answers), the model's own "
        "(tasks, judges)"
        if has_bf16(device)
        else "the model's own",
    }
    if config.data:
        found |= {
            "bits_per_byte": "the whole validation split as one stream, in windows of the trained context without "
            "overlap; every token scored once, the first after <|endoftext|>; <|endoftext|> tokens cost bits and count "
            "no bytes",
            "answers": f"greedy, up to {config.max_new_tokens} new tokens, judged by reading, never executed",
            "preferences": "total log-probability of the answer, <|im_end|> included",
        }
    if config.chats:
        found["chats"] = (
            f"greedy, up to {config.max_new_tokens} new tokens; reference answers given their prompts: their end costs "
            "bits and counts no bytes"
        )
        judges = [f"{name}: {chat.judge}" for name, chat in config.chats.items() if chat.judge]
        found |= {"judges": ", ".join(judges)} if judges else {}
    if config.pairs:
        found["pairs"] = "total log-probability of the answer, its end included; margins in nats"
    if config.texts:
        found["texts"] = "bits per byte of each document by itself, in windows of the context without overlap"
    if config.tasks:
        shots = "as each task says" if config.num_fewshot is None else config.num_fewshot
        template = "applied" if config.apply_chat_template else "not applied"
        items = "all items" if config.limits.tasks is None else f"the first {config.limits.tasks} items of each"
        found["tasks"] = f"lm-eval; few-shot examples: {shots}; chat template: {template}; {items}"
        if config.data_dir:
            found["data_dir"] = config.data_dir
    return found | {
        "errors": "one standard error of the sample of questions; training was not repeated",
        "seed": config.seed,
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


def page(table: list[list[str]], remarks: list[str], conditions: dict[str, Any]) -> str:
    """results.md: the table, what must be said of single figures, and the conditions."""
    lines = "".join(f"- {remark}\n" for remark in remarks)
    shown = {key: value for key, value in conditions.items() if key != "versions" and value is not None}
    lines += "".join(f"- {key.replace('_', ' ')}: {value}\n" for key, value in shown.items())
    versions = ", ".join(f"{package} {version}" for package, version in conditions["versions"].items())
    return f"# Evaluation\n\n{as_markdown(table)}\n{lines}- versions: {versions}\n"
