"""One answer by itself, for models whose state cannot be shared between rows, such as Mamba's."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from training.serving.answer import Answer, continue_answers


def generate_alone(model: PreTrainedModel, answer: Answer, stopped: Callable[[], bool]) -> None:
    """Generate a whole answer: `generate` prepares the model's state, and the answer chooses its tokens.

    Args:
        stopped: whether to end, asked after each token, beside the end of the answer itself.
    """

    def loop(
        model: PreTrainedModel,
        input_ids: torch.LongTensor,  # (1, seq)
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **state: Any,
    ) -> torch.LongTensor:
        output = model._prefill(input_ids, generation_config, state)
        while True:
            state = model._update_model_kwargs_for_generation(output, state, is_encoder_decoder=False)
            continue_answers([answer], output.logits[:, -1])
            input_ids = torch.tensor([answer.sampler.ids], device=model.device)
            if not answer.in_progress or stopped():
                return input_ids
            length = 1 if state["use_cache"] else None
            inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=length, **state)
            output = model(**inputs, return_dict=True)

    input_ids = torch.tensor([answer.prompt], device=model.device)
    model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        max_new_tokens=answer.limit,
        num_beams=1,
        num_return_sequences=1,
        tokenizer=answer.tokenizer,  # for `stop_strings` in the model's settings
        custom_generate=loop,
    )
