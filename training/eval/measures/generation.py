"""Greedy answers of a model, generated in batches."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.common.progress import progress_bar
from training.eval.measures.batching import by_length, pad


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    end: int,
    max_new_tokens: int,
    batch_size: int,
) -> list[tuple[str, bool]]:
    """Greedy answers in the order of the prompts: the text, and whether the answer ended with `end`.

    Args:
        prompts: token ids.
        end: the token that closes a turn, such as `<|im_end|>`. Generation stops there or at the tokenizer's end of
            text; only the first counts as an end.
        max_new_tokens: maximum tokens of an answer.
        batch_size: answers generated at a time.
    """
    stops = [token for token in dict.fromkeys([end, tokenizer.eos_token_id]) if token is not None]
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    answers: list[tuple[str, bool]] = [("", False)] * len(prompts)
    with progress_bar(total=len(prompts), desc="answers", unit="answer", leave=False) as bar:
        for batch in by_length([len(prompt) for prompt in prompts], batch_size):
            ids, mask = pad([prompts[index] for index in batch], padding, left=True)
            generated = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=stops,
                pad_token_id=padding,
            )[:, ids.shape[1] :]  # (batch, new)
            for index, new in zip(batch, generated.tolist()):
                stop = next((place for place, token in enumerate(new) if token in stops), None)
                text = tokenizer.decode(new[:stop], skip_special_tokens=True)
                answers[index] = (text, stop is not None and new[stop] == end)
            bar.update(len(batch))
    return answers
