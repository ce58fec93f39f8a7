"""The sampler of one answer: chooses tokens as `generate` does, with random numbers of its own.

Logits are processed by transformers' own processors, in its order, so that every setting of a model's
`generation_config.json` means what it means in `generate`. The random numbers come from a generator that belongs to the
answer, always on the CPU: a seed gives the same answer on every device, whatever other answers are in progress.
"""

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from training.serving.settings import AnswerSettings


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
    """Chooses the tokens of one answer.

    Args:
        settings: of the answer, `max_new_tokens` included.
        random: settings that hold the penalties and the seed.

    Attributes:
        input_ids: prompt and answer so far, (1, seq).
    """

    def __init__(self, model: PreTrainedModel, prompt: list[int], settings: GenerationConfig, random: AnswerSettings):
        self.input_ids = torch.tensor([prompt])
        self.greedy = not settings.do_sample
        self.processors = processors(model, len(prompt), settings, random)
        self.generator = torch.Generator()
        if random.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(random.seed)

    def choose(self, logits: torch.Tensor) -> int:
        """The next token.

        Args:
            logits: (vocab,), fp32, on the CPU.

        Raises:
            ArithmeticError: the logits are NaN or infinite.
        """
        if torch.isnan(logits).any() or torch.isposinf(logits).any():
            raise ArithmeticError("the model's logits are NaN or infinite")
        scores = self.processors(self.input_ids, logits[None])[0]
        if self.greedy:
            token = int(scores.argmax())
        else:
            token = int(torch.multinomial(scores.softmax(dim=-1), 1, generator=self.generator))
        self.input_ids = torch.cat((self.input_ids, torch.tensor([[token]])), dim=1)
        return token


def processors(
    model: PreTrainedModel, prompt_length: int, settings: GenerationConfig, random: AnswerSettings
) -> LogitsProcessorList:
    """The processors that `generate` applies with these settings, the penalties before the temperature."""
    penalties = LogitsProcessorList()
    if random.frequency_penalty or random.presence_penalty:
        penalties.append(OccurrencePenalty(random.frequency_penalty, random.presence_penalty, prompt_length))
    settings, _ = model._prepare_generation_config(settings)
    settings.max_length = prompt_length + settings.max_new_tokens
    model._prepare_special_tokens(settings, True, device="cpu")
    return model._get_logits_processor(settings, prompt_length, logits_processor=penalties, device="cpu")
