"""Checkpoints that count only when they are whole.

A checkpoint is a folder `step-00000500`: a plain Hugging Face directory, and below `state/` what Accelerate needs to go
on (optimizer, random states, its own copy of the weights in the layout of the engine in use). It is written beside, as
`step-00000500.tmp`, gets its completion marker, and is then renamed.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from training.engine.hub import save_model

MARKER = "complete.json"


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint below `folder` and what its marker says, or None."""
    for candidate in sorted(folder.glob("step-*[0-9]"), reverse=True):
        if (candidate / MARKER).is_file():
            return candidate, json.loads((candidate / MARKER).read_text())
    return None


def save_checkpoint(
    accelerator: Accelerator, model: Any, tokenizer_dir: str, folder: Path, progress: dict[str, Any], keep: int
) -> None:
    """Write the checkpoint of `progress["step"]` and drop all but the newest `keep`. Every process calls this."""
    target = folder / f"step-{progress['step']:08d}"
    temporary = target.with_name(target.name + ".tmp")
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(temporary / "state"))
    export_model(accelerator, model, tokenizer_dir, temporary)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (temporary / MARKER).write_text(json.dumps(progress))
        temporary.rename(target)
        for old in sorted(folder.glob("step-*[0-9]"))[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def export_model(accelerator: Accelerator, model: Any, tokenizer_dir: str, folder: Path) -> None:
    """Gather the weights, wherever the engine keeps them, into one Hugging Face directory. Every process calls this."""
    state_dict = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        save_model(accelerator.unwrap_model(model), tokenizer_dir, folder, state_dict=state_dict)
