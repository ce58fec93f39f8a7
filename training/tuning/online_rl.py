"""Base of the GRPO and RLOO trainers: rewards by name, completions saved, and a plot of reward against KL."""

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from jinja2 import TemplateError
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, PreTrainedTokenizerBase

from training.common.errors import UserError, one_line
from training.common.metrics import SAMPLES
from training.model_io.context_length import context_length
from training.model_io.conversations import encode_answers, encode_prompt
from training.model_io.tokenizers import UnknownCharacter
from training.plots.reward import draw_reward
from training.pretraining.config import largest_divisor
from training.tuning.dataset_formats import NUMBER
from training.tuning.encoding import check_lengths, report_spelled, spelled_token
from training.tuning.reward_functions import find_rewards


def batch_defaults(given: dict[str, Any], defaults: dict[str, Any], processes: int) -> dict[str, int]:
    """Defaults of the keys of a batch that follow those that the recipe gives.

    A batch has whole groups: `num_generations` completions of each prompt. TRL's defaults fit each other only.

    Args:
        given: the keys of the recipe.
        defaults: TRL's.
    """

    def value(key: str) -> int:
        return given.get(key) or follow.get(key) or defaults[key]

    follow: dict[str, int] = {}
    group, most = value("num_generations"), defaults["per_device_train_batch_size"]
    generated = given.get("generation_batch_size")
    accumulates = given.get("steps_per_generation") or given.get("gradient_accumulation_steps")
    at_once = given.get("per_device_train_batch_size")
    if generated:
        divisor = largest_divisor(generated, group)
        follow["num_generations"] = divisor if divisor > 1 else generated
        follow["per_device_train_batch_size"] = largest_divisor(max(1, generated // processes), most)
    elif not at_once and most * processes * (accumulates or 1) % group:
        follow["per_device_train_batch_size"] = most // group * group or largest_divisor(group, most)
    if not (generated or accumulates or at_once and given.get("num_generations")):
        at_once = value("per_device_train_batch_size") * processes
        follow["gradient_accumulation_steps"] = group // math.gcd(group, at_once)
    evaluated = value("per_device_eval_batch_size") * processes
    group = given.get("num_generations_eval") or value("num_generations")
    if evaluated % group and not given.get("per_device_eval_batch_size"):
        follow["per_device_eval_batch_size"] = group
    elif evaluated % group and not given.get("num_generations_eval"):
        follow["num_generations_eval"] = largest_divisor(evaluated, group)
    return {key: number for key, number in follow.items() if not given.get(key) and number != defaults[key]}


def load_rewards(recipe: Any, columns: list[str]) -> list[Any]:
    """The rewards of a recipe: the reward model first, as in the stock program, then the reward functions.

    Args:
        recipe: a `TrlRecipe`.
        columns: of the data.

    Raises:
        UserError: the recipe names none, or one that cannot be loaded or lacks a column.
    """
    reward_model = recipe.script.reward_model_name_or_path
    if reward_model:
        try:
            AutoConfig.from_pretrained(reward_model, trust_remote_code=recipe.training.trust_remote_code)
        except (OSError, ValueError) as error:
            raise UserError(f"'reward_model_name_or_path': no model at {reward_model} ({one_line(error)})") from None
    rewards = [reward_model] if reward_model else []
    rewards += find_rewards(recipe.script.reward_funcs or [], columns, recipe.where)
    if not rewards:
        raise UserError(
            f"{recipe.where}: 'reward_funcs' is missing (a list such as [number]; or reward_model_name_or_path)"
        )
    return rewards


class OnlineTrainer:
    """Mixin for TRL's GRPOTrainer and RLOOTrainer; it comes before them in the list of bases.

    Raises:
        UserError: prompts whose completions would exceed the model's positions, or a reward that is not finite.
    """

    loss_label = "policy loss (does not measure progress)"

    def __init__(self, *, model: Any, **others: Any):
        super().__init__(model=model, **others)
        self.check_prompts(self.train_dataset, "train", context_length(model.config))
        self.check_prompts(self.eval_dataset, "eval", context_length(model.config))

    def check_prompts(self, data: Any, name: str, positions: int | None) -> None:
        """Reject prompts that leave no room for `max_completion_length` tokens, and report special tokens in text.

        Args:
            data: a split; a stream, or None, is not checked.
            name: of the split.
            positions: of the model.

        Raises:
            UserError: with the number of such prompts.
        """
        if not isinstance(data, Dataset):
            return
        completion = self.args.max_completion_length
        lengths = [
            len(ids)
            for batch in data.select_columns("prompt").iter(1000)
            for ids in self._tokenize_prompts(batch["prompt"])[0]
        ]
        remedy = f"they have up to {max(lengths)} tokens; shorten the completions, or remove the longest prompts"
        split = f"{name}, with completions of {completion} tokens,"
        whole = [length + completion for length in lengths]
        check_lengths(whole, positions, "prompts", split, remedy, "max_completion_length")
        report_spelled([spelled_token(record, self.processing_class) for record in data.select_columns("prompt")], name)

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """The token ids of prompts as chat and evaluation show them, no images, and nothing else of a processor."""
        encoded = [encode_prompt(self.processing_class, prompt, **self.chat_template_kwargs) for prompt in prompts]
        return encoded, None, {}

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list[Any], completions: list[Any], *others: Any
    ) -> torch.Tensor:
        """TRL's rewards of the completions of all processes, (completions, rewards).

        A reward model reads prompt and completion as `scratch reward` encodes them.

        Raises:
            UserError: a reward model gave NaN or infinity, or its chat template rejects a conversation.
        """
        tokenizers = self.reward_processing_classes
        self.reward_processing_classes = [
            None if tokenizer is None else RewardBatch(tokenizer, prompts, completions, self.chat_template_kwargs)
            for tokenizer in tokenizers
        ]
        try:
            rewards = super()._calculate_rewards(inputs, prompts, completions, *others)
        finally:
            self.reward_processing_classes = tokenizers
        for column, (function, name) in enumerate(zip(self.reward_funcs, self.reward_func_names, strict=True)):
            wrong = ~rewards[:, column].isfinite()
            if isinstance(function, torch.nn.Module) and wrong.any():
                records = gather_object([example[NUMBER] for example in inputs])
                place = int(wrong.nonzero()[0])
                raise UserError(
                    f"'reward_model_name_or_path': {name} gave {rewards[place, column]:g} on record {records[place]} "
                    "of the data; a reward must be finite"
                )
        return rewards

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as TRL does, and save the completions of a training step."""
        if self.log_completions:  # TRL created this folder in the temporary output_dir of its construction
            os.makedirs(Path(self.args.output_dir) / "completions", exist_ok=True)
        super().log(logs, start_time)
        if self.accelerator.is_main_process and "loss" in logs:
            self.save_samples()

    def save_samples(self) -> None:
        """Write the newest prompts and completions with their rewards, one file per step; a resumed run rewrites it."""
        rewards = {f"rewards/{name}": values for name, values in self._logs["rewards"].items()}
        columns = {"prompt": self._logs["prompt"], "completion": self._logs["completion"]} | rewards
        columns |= {"advantage": self._logs["advantages"]} | self._logs["extra"]
        folder = Path(self.args.output_dir) / "samples"
        folder.mkdir(exist_ok=True)
        with (folder / f"{self.state.global_step:09}.jsonl").open("w", encoding="utf-8") as stream:
            for row in zip(*columns.values(), strict=True):
                values = {key: _none_for_nan(value) for key, value in zip(columns, row, strict=True)}
                stream.write(json.dumps({"step": self.state.global_step} | values, ensure_ascii=False) + "\n")

    def after_training(self, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """Join the samples in one file, and plot reward against KL if KL was measured (`beta` above 0).

        Returns:
            The last reward, KL and completion length, and the names of the files.
        """
        history = [record for record in self.state.log_history if "reward" in record]
        if not self.accelerator.is_main_process or not history:
            return {}, []
        files, last = [], history[-1]
        samples = sorted(Path(self.args.output_dir).glob("samples/*.jsonl"))
        if samples:  # none with `logging_strategy: no`
            with (folder / SAMPLES).open("w", encoding="utf-8") as stream:
                stream.writelines(file.read_text(encoding="utf-8") for file in samples)
            files.append(SAMPLES)
        if "kl" in last:
            files += draw_reward(history, folder / "reward.png", folder.name.removesuffix(".partial"))
        keys = ("reward", "kl", "completions/mean_length")
        return {key: last[key] for key in keys if key in last}, files


class RewardBatch:
    """Stands in for the tokenizer of a reward model, where TRL would tokenize prompt and completion as one text.

    The model reads the tokens it was trained on: the prompt is encoded apart, and special tokens in it are text.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, prompts: list[Any], completions: list[Any], template: dict[str, Any]
    ):
        self.tokenizer, self.prompts, self.completions, self.template = tokenizer, prompts, completions, template

    def apply_chat_template(self, messages: list[Any], **_: Any) -> str:
        """Empty text, which `__call__` does not read."""
        return ""

    def __call__(self, text: list[str], **_: Any) -> dict[str, torch.Tensor]:
        """The padded `input_ids` and `attention_mask`, (completions, seq).

        Raises:
            UserError: the chat template of the reward model rejects a conversation.
        """
        pairs = zip(self.prompts, self.completions, strict=True)
        try:
            encoded = [encode_answers(self.tokenizer, *pair, **self.template) for pair in pairs]
        except UnknownCharacter as error:
            raise UserError(f"'reward_model_name_or_path': {error}") from None
        except TemplateError as error:
            raise UserError(
                f"'reward_model_name_or_path': its chat template rejects a conversation ({one_line(error)}); remove "
                "the record, or use another reward model"
            ) from None
        ids = [torch.tensor(each.prompt + each.answers[0]) for each in encoded]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id),
            "attention_mask": pad_sequence([torch.ones_like(each) for each in ids], batch_first=True),
        }


def _none_for_nan(value: Any) -> Any:
    """The value for JSON: None for a completion that a reward did not score."""
    return None if isinstance(value, float) and value != value else value
