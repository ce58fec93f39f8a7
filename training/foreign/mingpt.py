"""minGPT's `model.pt`: a GPT-2 as a bare state dict, its sizes in the `config.json` beside it."""

from training.common.json_files import read_json
from training.foreign.checkpoint import Checkpoint
from training.foreign.gpt2_names import KEYS, gpt2_sizes, read_gpt2
from training.foreign.sizes import Sizes, check_settings, whole_number
from training.foreign.stock import StockModel

NAME, FILE, KEYS = "minGPT", "model.pt", KEYS
SETTINGS = "config.json"
# Heads of its model types: `config.json` names the type alone.
_HEADS = {
    **{"openai-gpt": 12, "gpt2": 12, "gpt2-medium": 16, "gpt2-large": 20, "gpt2-xl": 25},
    **{"gopher-44m": 16, "gpt-mini": 6, "gpt-micro": 4, "gpt-nano": 3},
}


def matches(checkpoint: Checkpoint) -> bool:
    """Whether it has the tensors. nanoGPT, which has them too, is asked first."""
    return checkpoint.names() >= KEYS


def read(checkpoint: Checkpoint, sizes: Sizes) -> StockModel:
    """The model as GPT-2. Without `config.json`, which training writes, the number of heads is missing."""
    settings = {}
    file = checkpoint.file.with_name(SETTINGS)
    if file.is_file():
        try:
            settings = read_json(file, {"model": {str: object}})["model"]
        except ValueError:
            raise checkpoint.error(f"{file} is not minGPT's; move it away and add --heads N") from None
    found = gpt2_sizes(checkpoint)
    check_settings(checkpoint, settings, found)
    sizes.agree(checkpoint, "context", found["block_size"], 1024)
    stored = whole_number(checkpoint, settings, "n_head") or _HEADS.get(str(settings.get("model_type")))
    heads = sizes.agree(checkpoint, "heads", stored, 6)
    return read_gpt2(checkpoint, NAME, heads, "gelu_new", 0.0)
