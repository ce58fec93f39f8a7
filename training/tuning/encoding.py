"""Records of tuning data as token ids, for all trainers, with checks of their lengths."""

import functools
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from datasets import Dataset
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from trl import extract_prompt

from training.common.errors import UserError, one_line
from training.model_io.conversations import encode_answers, encode_text
from training.model_io.tokenizers import unknown_token_id
from training.tuning.dataset_formats import VERSION, Record

_NOTES = ["as_shown", "spelled", "unknown"]  # columns that are counted, and then removed


def encode_dataset(data: Any, encode: Callable[..., Record], args: Any, name: str, **options: Any) -> Any:
    """A split, to which the columns are added that `encode` makes of each record.

    Prints how many records are not learned as they are shown at inference, and how many spell special tokens.

    Args:
        data: a split, a `Dataset` or an `IterableDataset`.
        encode: from a record and `options` to token ids, and `as_shown`, see `EncodedConversation`.
        args: of the trainer.
        name: of the split.
        options: for `encode`; the special tokens are those of the `tokenizer` among them.

    Raises:
        UserError: a record that `encode` or the chat template rejects.
    """

    def encode_record(record: Record, number: int, version: int, **options: Any) -> Record:
        try:
            encoded, tokenizer = encode(record, **options), options.get("tokenizer")
            unknown = None if tokenizer is None else unknown_token_id(tokenizer)
            lost = any(unknown in ids for name, ids in encoded.items() if "ids" in name)
            return encoded | {"spelled": spelled_token(record, tokenizer), "unknown": lost}
        except TemplateError as error:
            problem = f"the chat template rejects it ({one_line(error)}); remove it, or set another template"
        except ValueError as error:
            problem = str(error)
        raise UserError(f"'datasets', record {number + 1} of {name}: {problem}")

    options["version"] = VERSION
    if not isinstance(data, Dataset):  # a stream, of unknown length
        return data.map(encode_record, with_indices=True, fn_kwargs=options).remove_columns(_NOTES)
    with args.main_process_first(local=False):
        data = data.map(
            encode_record,
            with_indices=True,
            fn_kwargs=options,
            num_proc=args.dataset_num_proc,
            desc=f"Tokenizing {name} dataset",
        )
    different = data["as_shown"][:].count(False)
    if different:
        print(
            f"{name}: in {different:,} of {len(data):,} records the chat template writes a prompt differently once an "
            "answer follows, so that it is learned in a context that inference does not show; change the template"
        )
    if unknown := data["unknown"][:].count(True):
        print(
            f"{name}: {unknown:,} of {len(data):,} records have characters that the tokenizer does not know; the model "
            f"learns {options['tokenizer'].unk_token} in their place"
        )
    report_spelled(data["spelled"][:], name)
    return data.remove_columns(_NOTES)


def spelled_token(record: Record, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """The first special token in the texts of a record, empty without one; the end-of-text token may end them.

    Args:
        tokenizer: None for token ids.
    """
    texts = [value for column, value in record.items() if isinstance(value, str) and column != "tools"]
    if tokenizer is None or not texts:
        return ""
    special = _special_tokens(tokenizer)
    found = (special.search(text.removesuffix(tokenizer.eos_token or "")) for text in texts)
    return next((match[0] for match in found if match), "")


@functools.lru_cache(maxsize=8)
def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern:
    special = [re.escape(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(special) or "(?!)")


def report_spelled(tokens: list[str], name: str) -> None:
    """Print how many records of a split spell special tokens, which become characters instead of control tokens.

    Args:
        tokens: see `spelled_token`, one of each record.
    """
    found = [token for token in tokens if token]
    if found:
        print(
            f"{name}: {len(found):,} of {len(tokens):,} records spell special tokens such as {found[0]} in text, where "
            "they are characters, not control tokens; give conversations as messages"
        )


def encode_pairs(record: Record, tokenizer: PreTrainedTokenizerBase) -> Record:
    """The token ids of a record's prompt, as `prompt_ids`, and of its answers, such as `chosen_ids`."""
    if "prompt" not in record:
        record = record | extract_prompt(record)
    columns = [column for column in ("chosen", "rejected", "completion") if column in record]
    encoded = encode_answers(
        tokenizer, record["prompt"], *[record[column] for column in columns], **template_options(record)
    )
    ids = {f"{column}_ids": answer for column, answer in zip(columns, encoded.answers, strict=True)}
    return {"prompt_ids": encoded.prompt, "as_shown": encoded.as_shown} | ids


def template_options(record: Record) -> dict[str, Any]:
    """Arguments of a record for the chat template beside its messages: tools, and the variables of the template."""
    tools = record.get("tools")
    tools = json.loads(tools) if isinstance(tools, str) else tools
    return {"tools": tools} | (record.get("chat_template_kwargs") or {})


def encode_whole_pairs(record: Record, tokenizer: PreTrainedTokenizerBase) -> Record:
    """The token ids of a record's two conversations, or of its two texts, as `chosen_ids` and `rejected_ids`."""
    if "prompt" in record:
        pair = encode_pairs(record, tokenizer)
        return pair | {column: pair["prompt_ids"] + pair[column] for column in ("chosen_ids", "rejected_ids")}
    ids = {f"{column}_ids": encode_text(tokenizer, record[column]) for column in ("chosen", "rejected")}
    return ids | {"as_shown": True}


def ids_as_messages(record: Record) -> Record:
    """A record whose prompt and answers are messages with token ids as their content, for `IdsTokenizer`."""
    columns = {name.removesuffix("_ids"): ids for name, ids in record.items() if name.endswith("_ids")}
    messages = {name: [{"role": name, "content": ids}] for name, ids in columns.items()}
    return messages | {"label": record["label"]} if "label" in record else messages


class IdsTokenizer:
    """Stands in for the tokenizer where TRL would tokenize records that hold token ids already.

    TRL tokenizes the prompt, and then the prompt with each answer.
    """

    def apply_chat_template(self, messages: list[Record], **_: Any) -> dict[str, list[int]]:
        """The token ids of `ids_as_messages`."""
        return {"input_ids": [index for message in messages for index in message["content"]]}


def check_lengths(
    lengths: Iterable[int], positions: int | None, kind: str, name: str, remedy: str, key: str = "max_length"
) -> None:
    """Reject samples that exceed the model's positions.

    Args:
        lengths: in tokens, as the samples would be trained on.
        positions: of the model, see `training.model_io.context_length`.
        kind, name: what the samples are, and of which split, as in "pairs of train".
        remedy: what the user should do.
        key: the recipe key to change.

    Raises:
        UserError: with the number of samples that are too long.
    """
    beyond = sum(length > positions for length in lengths) if positions else 0
    if beyond:
        raise UserError(
            f"'{key}': {beyond:,} {kind} of {name} exceed the model's {positions} positions (max_position_embeddings); "
            f"{remedy}"
        )


def check_kept(lengths: list[int], count: int, max_length: int | None, positions: int | None, name: str) -> None:
    """Report how many preference records were dropped because their prompts fill `max_length`.

    Args:
        lengths: of the records that were kept, in tokens, as they would be trained on.
        count: number of all records.
        positions: of the model, see `training.model_io.context_length`.
        name: of the split.

    Raises:
        UserError: none was kept, or some exceed the model's positions.
    """
    if not lengths:
        raise UserError(
            f"'max_length': every prompt of {name} fills all {max_length} tokens and leaves no room for an answer; "
            "raise it"
        )
    if len(lengths) < count:
        dropped = count - len(lengths)
        print(f"{name}: {dropped:,} of {count:,} records are dropped: their prompts fill max_length {max_length}")
    check_lengths(lengths, positions, "records", name, f"set max_length: {positions} to truncate them")
