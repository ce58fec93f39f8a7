"""Serve a model with an OpenAI-compatible API.

    scratch serve runs/quickstart/export --port 8000

This is `transformers serve` with our model classes registered, because the stock command rejects custom classes. As in
`scratch chat`, special tokens in a request are text: only the chat template writes control tokens. MODEL is loaded at
startup, and requests use that name. Without MODEL, the server loads the model that each request names.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training.common.errors import UserError, one_line
from training.common.hub_names import is_hub_name
from training.common.packages import how_to_install
from training.common.recipe import PathText, option, parse, positional


@dataclass
class ServeConfig:
    """Options of `scratch serve`, which are those of `transformers serve`. None leaves an option to its default."""

    model: PathText | None = positional("model folder or Hub name, to load at startup", None)
    host: str | None = option(None, "address to listen on; default localhost", group="Server")
    port: int | None = option(None, "port to listen on; default 8000", at_least=0, group="Server")
    enable_cors: bool = option(False, "allow requests from pages of other sites", group="Server")
    log_level: str | None = option(None, "log level, such as info; default warning", group="Server")
    device: str | None = option(None, "device, such as cuda:0 or cpu; default auto", group="Model")
    dtype: str | None = option(None, "data type of the weights; default: as stored", group="Model")
    attn_implementation: str | None = option(None, "attention kernel, such as flash_attention_2", group="Model")
    compile: bool = option(False, "compile the model with torch.compile", group="Model")
    quantization: str | None = option(None, "bnb-4bit or bnb-8bit", group="Model")
    trust_remote_code: bool = option(False, "run the code in a model's repository", group="Model")
    model_timeout: int | None = option(None, "seconds after which an idle model is unloaded", group="Model")
    default_seed: int | None = option(None, "sampling seed", group="Answers")
    reasoning: Literal["auto", "on", "off"] | None = option(None, "reasoning mode, if supported", group="Answers")
    chat_template_kwargs: str | None = option(
        None, "JSON object with arguments of the chat template", group="Answers"
    )
    continuous_batching: bool = option(False, "batch requests continuously, with paged attention", group="Batching")
    cb_block_size: int | None = option(None, "tokens per block of the KV cache", group="Batching")
    cb_num_blocks: int | None = option(None, "number of blocks of the KV cache", group="Batching")
    cb_max_batch_tokens: int | None = option(None, "maximum tokens in a batch", group="Batching")
    cb_max_memory_percent: float | None = option(None, "fraction of GPU memory for the KV cache", group="Batching")
    cb_use_cuda_graph: bool | None = option(None, "use CUDA graphs", group="Batching")


def main(arguments: list[str]) -> None:
    """Check the model, register our classes and our encoding of requests, and run `transformers serve`.

    Raises:
        UserError: a damaged model, or packages that are not installed.
    """
    config = parse(ServeConfig, arguments, __doc__, recipe=False)
    if config.model and not is_hub_name(config.model) and not Path(config.model).is_dir():
        raise UserError(f"'model': {config.model}: no such folder; a model on the Hub is written owner/name")

    import transformers.processing_utils  # noqa: F401  (re-executes the package, so anything set on it before is lost)
    from huggingface_hub.constants import HF_HUB_CACHE

    import modeling_scratch
    from training.chat.requests import encode_requests
    from training.model_io.tokenizers import open_model_tokenizer
    from training.model_io.weights import check_weights

    if config.model and (Path(config.model) / "config.json").is_file():
        open_model_tokenizer(config.model, "model")
        check_weights(config.model, "model")
    module = sys.modules["transformers"]
    for name in ("ScratchForCausalLM", "ScratchForSequenceClassification"):
        setattr(module, name, getattr(modeling_scratch, name))
    load = module.AutoProcessor.from_pretrained  # the server loads tokenizers with it

    def load_tokenizer(*names: str, **options: Any) -> Any:
        loaded = load(*names, **options)
        if isinstance(loaded, module.PreTrainedTokenizerBase):  # rather than a processor of images
            encode_requests(loaded)
        return loaded

    module.AutoProcessor.from_pretrained = load_tokenizer
    Path(HF_HUB_CACHE).mkdir(parents=True, exist_ok=True)  # /v1/models lists its content, and fails without it
    sys.argv = ["transformers", "serve", *stock_arguments(config)]
    try:
        from transformers.cli.transformers import main as transformers_main

        transformers_main()
    except ImportError as error:
        raise UserError(f"serve needs packages that are not installed ({error}); {how_to_install('fastapi')}") from None
    except OSError as error:
        raise UserError(f"'model': {config.model} cannot be served ({one_line(error)})") from None


def stock_arguments(config: ServeConfig) -> list[str]:
    """The command line of `transformers serve`: the model and every option that was given."""
    words = [config.model] if config.model else []
    for field in dataclasses.fields(config)[1:]:
        value, flag = getattr(config, field.name), field.name.replace("_", "-")
        if isinstance(value, bool):
            words += [f"--{flag}"] if value else [f"--no-{flag}"] if field.default is None else []
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return words
