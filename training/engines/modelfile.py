"""Modelfile of Ollama, which makes a model of a GGUF file: its prompt, where it stops, its sampling settings."""

from transformers import GenerationConfig

from modeling_scratch.tokenization_base import CHAT_TEMPLATE, END_OF_TEXT, TURN_END
from training.engines.sampling import sampling_settings

NAME = "Modelfile"
# Our chat template in Ollama's language, as far as messages of text go.
_CHAT = """\
{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
_VERBATIM = "{{ .Prompt }}"  # a base model continues the prompt as it is


def modelfile(gguf: str, generation: GenerationConfig, context: int, chat_template: str | None) -> str:
    """The text of a Modelfile.

    Args:
        gguf: name of the GGUF file beside it.
        generation: settings of the model. Those that are not named there have values in Ollama that are not ours.
        context: tokens; Ollama's default is another.
        chat_template: of the model; None if it does not answer messages. Ollama reads one that is not ours from the
            GGUF file.
    """
    lines = [f"FROM ./{gguf}"]
    if chat_template is None:
        lines += [f'TEMPLATE """{_VERBATIM}"""']
    elif chat_template == CHAT_TEMPLATE:
        lines += [f'TEMPLATE """{_CHAT}"""', f'PARAMETER stop "{TURN_END}"', f'PARAMETER stop "{END_OF_TEXT}"']
    sampling = sampling_settings(generation)
    sampling["repeat_penalty"] = sampling.pop("repetition_penalty")  # Ollama's name
    settings = {"num_ctx": context} | sampling
    if generation.max_new_tokens:
        settings["num_predict"] = generation.max_new_tokens
    return "\n".join([*lines, *(f"PARAMETER {name} {value}" for name, value in settings.items())]) + "\n"
