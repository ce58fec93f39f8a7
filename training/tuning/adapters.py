"""Low-rank adapters (PEFT): saved beside the merged model, checked against a base, and merged into it."""

import importlib.util
import json
import warnings
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from training.common.errors import UserError, one_line
from training.common.files import write_whole
from training.common.hub_names import is_hub_name
from training.common.json_files import read_json
from training.common.packages import how_to_install
from training.model_io.model_kinds import ADAPTER_CONFIG, is_adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BASE = "base.json"  # written beside it: the digest of the weights that the adapter was trained on

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


def check_quantization(values: dict[str, Any], where: str) -> None:
    """Reject 4 or 8 bits without an adapter, a CUDA device or bitsandbytes.

    Args:
        values: of a recipe in TRL's field names.
        where: what to call the recipe in an error.

    Raises:
        UserError: which of these is missing.
    """
    key = next((key for key in ("load_in_4bit", "load_in_8bit") if values.get(key)), None)
    if key is None:
        return

    import torch

    if not values.get("use_peft"):
        raise UserError(f"{where}: '{key}': quantized weights cannot be trained; add use_peft: true for an adapter")
    if not torch.cuda.is_available():
        raise UserError(f"{where}: '{key}' needs a CUDA device, and there is none; remove it to train with LoRA")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{where}: '{key}' needs the package bitsandbytes; {how_to_install('bitsandbytes')}")


def save_adapter(model: Any, base: str, folder: Path) -> None:
    """Write an adapter as PEFT does, with a digest of its base's weights, and with a model card that the Hub accepts:
    PEFT's card names a local base as if it were on the Hub.

    Args:
        model: the `PeftModel`.
        base: folder, or name on the Hub, of the model it was trained on.
        folder: to write to.
    """
    from training.model_io.model_folder import weights_digest

    model.save_pretrained(folder)
    if not is_hub_name(base):
        write_whole(folder / BASE, json.dumps({"weights_sha256": weights_digest(base)}) + "\n")
    on_the_hub = "" if Path(base).exists() else f"base_model: {base}\n"
    words = {"task": "text-generation", "kind": "AutoModelForCausalLM", "options": ""}
    if model.peft_config["default"].task_type == "SEQ_CLS":
        scores = {"kind": "AutoModelForSequenceClassification", "options": "num_labels=1, "}
        words = {"task": "text-classification"} | scores
    (folder / "README.md").write_text(_CARD.format(base=base, base_model=on_the_hub, **words), encoding="utf-8")


def check_adapter(folder: str | Path, base: str | Path, key: str) -> None:
    """Reject an adapter that was not trained on the weights in `base`. `merge_adapter` compares the tensors' shapes.

    An adapter of ours notes a digest of those weights. One of another program notes only the name of its base: if that
    is a folder here, its weights are compared, and a line says so if they are newer than the adapter; otherwise a line
    says that nothing can be compared.

    Args:
        key: of the recipe that names the adapter.

    Raises:
        UserError: the folder holds no adapter, a damaged one, or one for another base.
    """
    from training.model_io.model_folder import weights_digest

    if not is_adapter(folder):
        raise UserError(f"'{key}': {folder} holds no adapter ({ADAPTER_CONFIG})")
    noted = _read_note(folder, ADAPTER_CONFIG, "base_model_name_or_path", key)
    if (Path(folder) / BASE).is_file():
        trained_on = _read_note(folder, BASE, "weights_sha256", key)
    elif noted and (Path(noted) / "config.json").is_file():
        trained_on = weights_digest(noted)
        if _last_written(noted) > _last_written(folder):
            print(
                f"{key}: the weights in {noted} are newer than the adapter in {folder}; if they were trained again in "
                "the meantime, train the adapter again too"
            )
    else:
        print(f"{key}: {folder}: its base, {noted}, is not a folder here; nothing tells if {base} has the same weights")
        return
    if trained_on != weights_digest(base):
        raise UserError(
            f"'{key}': {folder} was trained on other weights than those in {base} (its base was {noted}); "
            "give the model that it was trained on as 'model', or train it again"
        )


def _last_written(folder: str | Path) -> float:
    """The time of the newest weights file, or 0 without one."""
    return max((file.stat().st_mtime for file in Path(folder).glob("*.safetensors")), default=0.0)


def _read_note(folder: str | Path, file: str, name: str, key: str) -> Any:
    try:
        return read_json(Path(folder) / file, {name: (str, NoneType)})[name]
    except ValueError:
        raise UserError(f"'{key}': {folder}/{file} is damaged; download or train the adapter again") from None


def open_base(base: str | Path, folder: str | Path, auto_class: type, key: str) -> "PreTrainedModel":
    """The model that an adapter was trained on, with as many labels and embeddings as the adapter holds.

    An adapter of a reward model or a classifier holds its scores. One of a model with added tokens holds the whole
    embedding, which is larger than that of the base.

    Args:
        base: folder of the model.
        folder: of the adapter; see `check_adapter`.
        auto_class: that opens the base, unless the adapter is for a classifier.
        key: of the recipe that names the adapter.

    Raises:
        UserError: the adapter's weights are missing or damaged.
    """
    from peft.utils.save_and_load import load_peft_weights
    from transformers import AutoModelForSequenceClassification

    from training.model_io.model_folder import quiet_loading

    try:
        weights, options = load_peft_weights(folder, device="cpu"), {}
    except Exception as error:  # of any class, where a file holds something else than PEFT expects
        raise UserError(f"'{key}': {folder} is not an adapter for {base} ({_shorten(one_line(error))})") from None
    scores = weights.get("base_model.model.score.weight")  # (labels, hidden_size)
    if scores is not None:
        auto_class, options = AutoModelForSequenceClassification, {"num_labels": len(scores)}
    with quiet_loading():  # the warning that the scores are new
        model = auto_class.from_pretrained(base, **options)
    embedding = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embedding)
    for path in (f"base_model.model.{name}.weight", f"base_model.model.{name}.base_layer.weight"):
        if path in weights and len(weights[path]) != embedding.num_embeddings:
            model.resize_token_embeddings(len(weights[path]), mean_resizing=False)
    return model


def merge_adapter(base: "PreTrainedModel", folder: str | Path, key: str) -> "PreTrainedModel":
    """The model with the adapter added to its weights.

    Args:
        key: of the recipe that names the adapter.

    Raises:
        UserError: the tensors do not match those of the base.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils.save_and_load import load_peft_weights
    from safetensors import SafetensorError

    name = base.config._name_or_path
    try:
        adapted = PeftModel.from_pretrained(base, folder)
        unmatched = load_peft_weights(folder).keys() ^ get_peft_model_state_dict(adapted).keys()  # PEFT only warns
        if unmatched:
            raise ValueError(f"{len(unmatched)} tensors do not match, such as {min(unmatched)}")
    except (ValueError, RuntimeError, OSError, SafetensorError) as error:
        reason = one_line(error)
        reason = reason.partition("size mismatch for ")[2] or reason  # PEFT lists every tensor
        raise UserError(f"'{key}': {folder} is not an adapter for {name} ({_shorten(reason)})") from None
    return merge_into_base(adapted)


def adapted_tokenizer(
    folder: str | Path, base: str | Path, model: "PreTrainedModel"
) -> "PreTrainedTokenizerBase | None":
    """The tokenizer beside the adapter, if it has one: tokens or a chat template may have been added for its training.

    Args:
        folder: of the adapter.
        base: folder of the model before it was merged.
        model: after.

    Raises:
        UserError: it does not fit the merged model, or it is missing although the model has new embeddings.
    """
    from transformers import AutoConfig

    from training.model_io.tokenizers import check_vocabulary, has_tokenizer, open_tokenizer

    if has_tokenizer(folder):
        tokenizer = open_tokenizer(folder, "adapter")
        check_vocabulary(tokenizer, model.config, folder, "adapter")
        return tokenizer
    before = AutoConfig.from_pretrained(base).get_text_config().vocab_size
    after = model.config.get_text_config().vocab_size
    if after != before:
        raise UserError(
            f"'adapter': {folder} was trained with {after} embeddings, but {base} has {before}; copy the tokenizer "
            "with the added tokens into the folder of the adapter"
        )
    return None


def _shorten(reason: str) -> str:
    return reason if len(reason) <= 220 else reason[:217] + "..."


def merge_into_base(adapted: "PeftModel") -> "PreTrainedModel":
    """The base model with the adapter added to its weights.

    If the adapter changes one end of a tied embedding, the ends become two matrices, in the configuration too.
    """
    import torch

    matrices, tied = set(), False
    for module in adapted.modules():
        weight = module._parameters.get("weight")
        if id(weight) in matrices:  # the other end, to which PEFT would add the adapter of the first
            module.weight, tied = torch.nn.Parameter(weight.detach().clone(), weight.requires_grad), True
        elif weight is not None:
            matrices.add(id(weight))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tied matrices
        model = adapted.merge_and_unload()
    if tied:
        tied = torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight)
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = tied
        model.tie_weights()
        if not tied:
            print("adapter: it changes one end of the tied embedding; the merged model has two matrices")
    return model
