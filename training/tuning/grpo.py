"""TRL's trainers that learn from rewards: rewards by name, what was sampled kept, reward against KL drawn."""

import json
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import AutoConfig
from trl import GRPOConfig, GRPOTrainer, RLOOTrainer

from training.common.errors import UserError, one_line
from training.common.recipe import nearest
from training.plots.reward import draw_reward
from training.tuning.dataset_formats import NUMBER
from training.tuning.lengths import check_positions, max_positions
from training.tuning.reward_functions import find_rewards

SAMPLES = "samples.jsonl"
SCALES = ("group", "batch", "none")  # which TRL lists where it raises


class Reinforced:
    """What the two have in common, to be put before TRL's class.

    Raises:
        UserError: prompts whose answers would exceed the model's positions.
    """

    def __init__(self, *, model: Any, **others: Any):
        super().__init__(model=model, **others)
        self.check_prompts(self.train_dataset, "train", max_positions(model))
        self.check_prompts(self.eval_dataset, "eval", max_positions(model))

    def check_prompts(self, data: Any, name: str, positions: int | None) -> None:
        """That each leaves room for an answer of `max_completion_length`.

        Args:
            data, name: a split, and what it is called; one of unknown length, or none, is not looked at.
            positions: of the model.

        Raises:
            UserError: how many do not.
        """
        if not isinstance(data, Dataset):
            return
        answer = self.args.max_completion_length
        lengths = [
            len(ids)
            for batch in data.select_columns("prompt").iter(1000)
            for ids in self._tokenize_prompts(batch["prompt"])[0]
        ]
        cure = f"they have up to {max(lengths)} tokens; shorten the answers, or take the longest out"
        split = f"{name}, with answers of {answer} tokens,"
        whole = [length + answer for length in lengths]
        check_positions(whole, positions, "prompts", split, cure, "max_completion_length")

    @classmethod
    def options(cls, recipe: Any, columns: list[str]) -> dict[str, Any]:
        """The rewards of a recipe: a model's first, as the stock program has it.

        Raises:
            UserError: none named, or one that cannot be had.
        """
        judge = recipe.script.reward_model_name_or_path
        if judge:
            try:
                AutoConfig.from_pretrained(judge, trust_remote_code=recipe.training.trust_remote_code)
            except (OSError, ValueError) as error:
                words = one_line(error)
                raise UserError(f"'reward_model_name_or_path': no model at {judge} ({words})") from None
        rewards = [judge] if judge else []
        rewards += find_rewards(recipe.script.reward_funcs or [], columns, recipe.where)
        if not rewards:
            raise UserError(
                f"{recipe.where}: 'reward_funcs' is missing (a list such as [number]; or reward_model_name_or_path)"
            )
        return {"reward_funcs": rewards}

    def _calculate_rewards(self, inputs: list[dict[str, Any]], *others: Any) -> torch.Tensor:
        """TRL's, (completions of all processes, rewards).

        Raises:
            UserError: a reward model gave no number.
        """
        rewards = super()._calculate_rewards(inputs, *others)
        for column, (function, name) in enumerate(zip(self.reward_funcs, self.reward_func_names, strict=True)):
            wrong = ~rewards[:, column].isfinite()
            if isinstance(function, torch.nn.Module) and wrong.any():
                records = gather_object([example[NUMBER] for example in inputs])
                place = int(wrong.nonzero()[0])
                raise UserError(
                    f"'reward_model_name_or_path': {name} gave {rewards[place, column]:g} on record {records[place]} "
                    "of the data; a reward is a finite number"
                )
        return rewards

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.log_completions:  # TRL made the folder before it was known which one
            os.makedirs(Path(self.args.output_dir) / "completions", exist_ok=True)
        super().log(logs, start_time)
        if self.accelerator.is_main_process and "loss" in logs:
            self.keep_samples()

    def keep_samples(self) -> None:
        """The newest prompts and completions with their rewards, a file a step: a run that goes on writes it again."""
        rewards = {f"rewards/{name}": values for name, values in self._logs["rewards"].items()}
        columns = {"prompt": self._logs["prompt"], "completion": self._logs["completion"]} | rewards
        columns |= {"advantage": self._logs["advantages"]} | self._logs["extra"]
        folder = Path(self.args.output_dir) / "samples"
        folder.mkdir(exist_ok=True)
        with (folder / f"{self.state.global_step:09}.jsonl").open("w", encoding="utf-8") as stream:
            for row in zip(*columns.values(), strict=True):
                values = {key: _plain(value) for key, value in zip(columns, row, strict=True)}
                stream.write(json.dumps({"step": self.state.global_step} | values, ensure_ascii=False) + "\n")

    def conclude(self, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """Puts the samples into one file, and draws reward against KL where a KL was measured (`beta` above 0)."""
        history = [record for record in self.state.log_history if "reward" in record]
        if not self.accelerator.is_main_process or not history:
            return {}, []
        files, last = [], history[-1]
        samples = sorted(Path(self.args.output_dir).glob("samples/*.jsonl"))
        if samples:  # none in a run of fewer steps than `logging_steps`, whose one record is that of its end
            with (folder / SAMPLES).open("w", encoding="utf-8") as stream:
                stream.writelines(file.read_text(encoding="utf-8") for file in samples)
            files.append(SAMPLES)
        if "kl" in last:
            draw_reward(history, folder / "reward.png", folder.name.removesuffix(".partial"))
            files.append("reward.png")
        keys = ("reward", "kl", "completions/mean_length")
        return {key: last[key] for key in keys if key in last}, files


def known_losses() -> list[str]:
    """What TRL takes as `loss_type` of GRPO, from its field, for TRL lists them nowhere else."""
    (field,) = (field for field in fields(GRPOConfig) if field.name == "loss_type")
    return re.findall(r"'(\w+)'", field.metadata["help"].partition("Supported values are")[2].partition(".")[0])


def _plain(value: Any) -> Any:
    """As JSON: a reward that judged nothing is null."""
    return None if isinstance(value, float) and value != value else value


class GroupTrainer(Reinforced, GRPOTrainer):
    """TRL's GRPOTrainer."""

    @classmethod
    def options(cls, recipe: Any, columns: list[str]) -> dict[str, Any]:
        for key, known in (("loss_type", known_losses()), ("scale_rewards", SCALES)):
            value = getattr(recipe.training, key)
            if value not in known:  # TRL finds out in its first step
                raise UserError(f"{recipe.where}: '{key}': no '{value}'; {nearest(value, known)}")
        return super().options(recipe, columns)


class LeaveOneOutTrainer(Reinforced, RLOOTrainer):
    """TRL's RLOOTrainer."""
