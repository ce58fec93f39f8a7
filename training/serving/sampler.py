"""The sampler of one answer: chooses tokens as `generate` does, with random numbers of its own.

Logits are processed by transformers' own processors, in its order, so that every setting of a model's
`generation_config.json` means what it means in `generate`. The random numbers come from a generator that belongs to the
answer, always on the CPU: a seed gives the same answer on every device, whatever other answers are in progress.
"""

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel
from transformers.generation import logits_process

from training.serving.settings import AnswerSettings

# Processors that look at the logits alone.
WITHOUT_HISTORY = {
    logits_process.SuppressTokensLogitsProcessor,
    logits_process.TemperatureLogitsWarper,
    logits_process.TopKLogitsWarper,
    logits_process.TopPLogitsWarper,
    logits_process.MinPLogitsWarper,
}


class OccurrencePenalty(LogitsProcessor):
    """OpenAI's `frequency_penalty` and `presence_penalty`, which count the tokens of the answer alone.

    Args:
        prompt_length: tokens before the answer.
    """

    def __init__(self, frequency: float, presence: float, prompt_length: int):
        self.frequency, self.presence, self.prompt_length = frequency, presence, prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:  # (1, seq), (1, vocab)
        tokens, counts = input_ids[0, self.prompt_length :].unique(return_counts=True)
        scores = scores.clone()
        scores[0, tokens] -= self.presence + self.frequency * counts
        return scores


class Sampler:
    """The choice of the tokens of one answer.

    Args:
        settings: of the answer, `max_new_tokens` included.
        wanted: settings that hold the penalties and the seed.

    Attributes:
        ids: tokens of prompt and answer so far.
        kind: equal for answers whose logits can be processed together; None if that depends on their tokens.
    """

    def __init__(self, model: PreTrainedModel, prompt: list[int], settings: GenerationConfig, wanted: AnswerSettings):
        self.ids = list(prompt)
        self.greedy = not settings.do_sample
        self.processors = processors(model, len(prompt), settings, wanted)
        self.kind = None
        if all(type(processor) in WITHOUT_HISTORY for processor in self.processors):
            # Tensors among the values come from the model's own settings, which are the same for all answers.
            values = [(type(each), *vars(each).values()) for each in self.processors]
            self.kind = self.greedy, *(value for entry in values for value in entry if not torch.is_tensor(value))
        self.generator = torch.Generator()
        if wanted.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(wanted.seed)

    def draw(self) -> torch.Tensor:
        """The next random number, a scalar from 0 to 1."""
        return torch.rand((), generator=self.generator, dtype=torch.float64)


def choose(samplers: list[Sampler], logits: torch.Tensor) -> list[int | Exception]:
    """The next token of each answer, or why there is none.

    Args:
        logits: (rows, vocab), fp32, on the CPU; a row for each sampler.
    """
    chosen: list[int | Exception] = [ArithmeticError("the model's logits are NaN or infinite")] * len(samplers)
    groups: dict[object, list[int]] = {}
    for row, finite in enumerate((logits < float("inf")).all(dim=1).tolist()):
        if finite:
            kind = samplers[row].kind
            groups.setdefault(row if kind is None else kind, []).append(row)
    for rows in groups.values():
        try:
            tokens: list[int | Exception] = _choose_alike([samplers[row] for row in rows], logits[rows])
        except Exception as error:
            tokens = [error] * len(rows)
        for row, token in zip(rows, tokens, strict=True):
            chosen[row] = token
    return chosen


def _choose_alike(samplers: list[Sampler], logits: torch.Tensor) -> list[int]:
    """The next tokens of answers of the same kind."""
    first = samplers[0]
    input_ids = torch.tensor([sampler.ids for sampler in samplers] if first.kind is None else [[0]] * len(samplers))
    scores = first.processors(input_ids, logits)
    if first.greedy:
        return scores.argmax(dim=-1).tolist()
    # The token at which the sum of probabilities exceeds a random part of their total.
    sums = scores.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    parts = torch.stack([sampler.draw() for sampler in samplers])[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, parts, right=True).clamp(max=sums.shape[1] - 1)[:, 0].tolist()


def processors(
    model: PreTrainedModel, prompt_length: int, settings: GenerationConfig, wanted: AnswerSettings
) -> LogitsProcessorList:
    """The processors that `generate` applies with these settings, the penalties before the temperature."""
    penalties = LogitsProcessorList()
    if wanted.frequency_penalty or wanted.presence_penalty:
        penalties.append(OccurrencePenalty(wanted.frequency_penalty, wanted.presence_penalty, prompt_length))
    settings, _ = model._prepare_generation_config(settings)
    settings.max_length = prompt_length + settings.max_new_tokens
    model._prepare_special_tokens(settings, True, device="cpu")
    return model._get_logits_processor(settings, prompt_length, logits_processor=penalties, device="cpu")
