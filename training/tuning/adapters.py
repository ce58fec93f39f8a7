"""Low-rank adapters of PEFT: kept beside the model they were merged into, and merged into a base again."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from training.common.errors import UserError, one_line
from training.common.packages import how_to_install
from training.common.stage import digest, read_provenance

ADAPTER_CONFIG = "adapter_config.json"

_CARD = """\
---
library_name: peft
pipeline_tag: {task}
tags: [scratch]
{base_model}---

# An adapter of {base}

```python
from peft import PeftModel
from transformers import {kind}

base = {kind}.from_pretrained("{base}", {options}trust_remote_code=True)
model = PeftModel.from_pretrained(base, "FOLDER_OR_NAME_OF_THIS")
```
"""


def is_adapter(folder: str | Path) -> bool:
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def check_quantization(recipe: Any, where: str) -> None:
    """Refuse 4 or 8 bits where they cannot be had.

    Args:
        recipe: TRL's ModelConfig.

    Raises:
        UserError: no adapter, no CUDA card, or no bitsandbytes.
    """
    key = "load_in_4bit" if recipe.load_in_4bit else "load_in_8bit"
    if not getattr(recipe, key):
        return
    if not recipe.use_peft:
        raise UserError(f"{where}: '{key}': a quantised model is trained through an adapter alone; add use_peft: true")
    if not torch.cuda.is_available():
        raise UserError(f"{where}: '{key}' needs a CUDA card, and there is none; without it the same recipe is LoRA")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{where}: '{key}' needs the package bitsandbytes; {how_to_install('bitsandbytes')}")


def save_adapter(model: Any, base: str, folder: Path) -> None:
    """Write an adapter as PEFT does, with a card that the Hub takes: PEFT's own names a local base as if it were there.

    Args:
        model: the `PeftModel`.
        base: the folder, or the name on the Hub, of the model it was trained on.
    """
    model.save_pretrained(folder)
    on_the_hub = "" if Path(base).exists() else f"base_model: {base}\n"
    words = {"task": "text-generation", "kind": "AutoModelForCausalLM", "options": ""}
    if model.peft_config["default"].task_type == "SEQ_CLS":
        scores = {"kind": "AutoModelForSequenceClassification", "options": "num_labels=1, "}
        words = {"task": "text-classification"} | scores
    (folder / "README.md").write_text(_CARD.format(base=base, base_model=on_the_hub, **words), encoding="utf-8")


def check_adapter(folder: str | Path, base: str | Path, key: str) -> None:
    """Refuse an adapter that was not trained on `base`, as far as notes can tell. `merge_adapter` looks at its shapes.

    Raises:
        UserError: no adapter there, a damaged one, or one of another base.
    """
    if not is_adapter(folder):
        raise UserError(f"'{key}': {folder} holds no adapter ({ADAPTER_CONFIG})")
    try:
        noted = json.loads((Path(folder) / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"'{key}': {folder}/{ADAPTER_CONFIG} is damaged; get it again") from None
    trained_on = read_provenance(Path(folder).parent).get("inputs", {}).get("model")  # of the stage that made it
    if trained_on and trained_on != digest(base, "model"):
        raise UserError(f"'{key}': {folder} was trained on other weights than those of {base} (it notes {noted})")


def merge_adapter(base: PreTrainedModel, folder: str | Path, key: str) -> PreTrainedModel:
    """The model with the adapter added to its weights.

    Raises:
        UserError: matrices that the base has not, or of another shape: it is an adapter for another base.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils.save_and_load import load_peft_weights
    from safetensors import SafetensorError

    name = base.config._name_or_path
    try:
        adapted = PeftModel.from_pretrained(base, folder)
        strange = load_peft_weights(folder).keys() ^ get_peft_model_state_dict(adapted).keys()  # PEFT only warns
        if strange:
            raise ValueError(f"{len(strange)} tensors do not match, such as {min(strange)}")
    except (ValueError, RuntimeError, OSError, SafetensorError) as error:
        reason = one_line(error)
        reason = reason if len(reason) <= 150 else reason[:147] + "..."
        raise UserError(f"'{key}': {folder} is no adapter for {name} ({reason})") from None
    return adapted.merge_and_unload()
