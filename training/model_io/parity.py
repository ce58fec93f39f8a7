"""Parity of two model folders: the largest difference of their logits."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from training.common.errors import UserError
from training.model_io.model_folder import no_progress_bars

# Rounding in fp32 when sums run in another order, relative to the largest logit (or to 1 if all are smaller).
TOLERANCE = 1e-5
LENGTH = 64  # random tokens


def check_parity(original: str | Path, converted: str | Path, model_class: type = AutoModelForCausalLM) -> float:
    """The largest absolute difference of the logits of two model folders, opened by an Auto class and run in fp32.

    The converted one may have fewer rows in its embedding; logits and inputs are those of the rows that both have.

    Args:
        model_class: the Auto class that opens both.

    Raises:
        UserError: the difference is larger than rounding explains.
    """
    results, rows = [], AutoConfig.from_pretrained(converted).get_text_config().vocab_size
    for folder in (original, converted):  # one model at a time in memory
        with no_progress_bars(), torch.no_grad():
            model = model_class.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
            length = min(LENGTH, model.config.max_position_embeddings)
            generator = torch.Generator().manual_seed(0)
            input_ids = torch.randint(rows, (1, length), generator=generator)
            results.append(model(input_ids).logits[..., :rows])
            del model
    expected, found = results
    difference = (found - expected).abs().max().item()
    if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):  # NaN is rejected too
        raise UserError(f"{converted}: its logits differ by up to {difference:.1e} from those of {original}; not kept")
    return difference
