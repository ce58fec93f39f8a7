"""Serve a model with an OpenAI-shaped API: scratch serve runs/quickstart/export --port 8000

Takes what `transformers serve` takes: a model's folder, loaded at once and asked for by that name, and its flags.
Without a folder it loads whichever model a request names. `transformers serve` looks classes up inside transformers
itself and refuses all others; this puts ours there first.
"""

import sys
from pathlib import Path

from training.common.errors import UserError, one_line


def main(arguments: list[str]) -> None:
    import transformers.processing_utils  # noqa: F401  (re-executes the package, so anything set on it before is lost)
    from huggingface_hub.constants import HF_HUB_CACHE

    import modeling_scratch
    from training.model_io.tokenizers import open_model_tokenizer
    from training.model_io.weights import check_weights

    for argument in arguments:
        if (Path(argument) / "config.json").is_file():
            open_model_tokenizer(argument, "model")
            check_weights(argument, "model")
    module = sys.modules["transformers"]
    for name in ("ScratchForCausalLM", "ScratchForSequenceClassification"):
        setattr(module, name, getattr(modeling_scratch, name))
    Path(HF_HUB_CACHE).mkdir(parents=True, exist_ok=True)  # /v1/models lists what is in it, and fails without it
    sys.argv = ["transformers", "serve", *arguments]
    try:
        from transformers.cli.transformers import main as transformers_main

        transformers_main()
    except ImportError as error:
        raise UserError(f"serving needs packages that are missing ({error}); pip install 'scratch[serve]'") from None
    except OSError as error:
        reason = one_line(error)
        raise UserError(f"serve {' '.join(arguments)}: no model that can be served ({reason})") from None
