"""The model and tokenizer that a tuning run starts from, and the trained model with its adapter merged in."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerBase
from trl import get_quantization_config

from training.common.errors import UserError, one_line
from training.model_io.model_folder import quiet_loading
from training.model_io.tokenizers import check_vocabulary, open_tokenizer
from training.model_io.weights import check_weights
from training.tuning.adapters import merge_adapter, merge_into_base
from training.tuning.pipeline.recipe import REWARD, TrlRecipe


def load_model(recipe: TrlRecipe) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model to start from, quantized if the recipe says so, and its tokenizer.

    Raises:
        UserError: there is no model, its weights are damaged, its embedding has fewer rows than there are tokens, or it
            does not have the requested attention.
    """
    start, revision = recipe.model.model_name_or_path, recipe.model.model_revision
    tokenizer = open_tokenizer(start, "model_name_or_path", revision)
    try:
        check_weights(start, "model_name_or_path", recipe.training.trust_remote_code, revision)
        model = _from_pretrained(
            recipe,
            attn_implementation=recipe.model.attn_implementation,
            quantization_config=get_quantization_config(recipe.model),
        )
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, ImportError) or "attn_implementation" in str(error):
            raise UserError(f"{recipe.where}: 'attn_implementation': {one_line(error)}") from None
        raise UserError(f"'model_name_or_path': no model at {start} ({one_line(error)})") from None
    check_vocabulary(tokenizer, model.config, start, "model_name_or_path")
    return model, tokenizer


def merge_trained_adapter(model: Any, recipe: TrlRecipe, adapter: Path) -> Any:
    """The base with the trained adapter merged in; a quantized base is loaded again, in its original weights.

    Args:
        model: the trained `PeftModel`.
        adapter: the folder in which its adapter was saved.
    """
    if recipe.model.load_in_4bit or recipe.model.load_in_8bit:
        return merge_adapter(_from_pretrained(recipe), adapter, "adapter")
    return merge_into_base(model)


def _from_pretrained(recipe: TrlRecipe, **options: Any) -> Any:
    auto_class = AutoModelForCausalLM
    if recipe.stage == REWARD:
        auto_class, options = AutoModelForSequenceClassification, options | {"num_labels": 1}
    with quiet_loading():  # the warning that the score head is new; `check_weights` has checked all else
        return auto_class.from_pretrained(
            recipe.model.model_name_or_path,
            revision=recipe.model.model_revision,
            dtype=recipe.model.dtype or "float32",
            trust_remote_code=recipe.training.trust_remote_code,
            **options,
        )
