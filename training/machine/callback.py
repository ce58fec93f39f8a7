"""Threads of a Trainer: their number follows the load between steps, and during generation and evaluation."""

from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.machine.threads import follow_load, follow_load_in


class FollowLoad(TrainerCallback):
    """Sets the number of threads by the load, and logs each change: a line, and a record for metrics.jsonl.

    During a step the number changes only where nothing is differentiated: between two generated tokens of GRPO or RLOO,
    and between two batches of an evaluation.
    """

    def __init__(self):
        self.logged: int | None = None  # the number in the last record

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        follow_load_in(model)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        change, number = follow_load(), torch.get_num_threads()
        if not change and self.logged in (None, number):
            return
        self.logged = number
        if state.is_world_process_zero:
            state.log_history.append({"step": state.global_step, "threads": number})
            tqdm.write(change or f"{number} threads")
