"""What every trainer learns begins, token for token, with the prompt that inference shows."""

import copy

import pytest
from character_tokenizers import character_tokenizer
from datasets import Dataset
from foreign_tokenizers import JOINS, byte_level, foreign
from messages import refused
from trl import DPOConfig, KTOConfig, RewardConfig, SFTConfig

from modeling_scratch.loss_scratch import IGNORE_INDEX
from modeling_scratch.tokenization_base import CHAT_TEMPLATE
from training.model_io.conversations import encode_prompt
from training.tuning.dpo import ScratchDPOTrainer
from training.tuning.encoding import encode_dataset, encode_pairs, encode_whole_pairs
from training.tuning.kto import ScratchKTOTrainer
from training.tuning.online_rl import RewardBatch
from training.tuning.orpo import ORPOConfig, ScratchORPOTrainer, encode_record
from training.tuning.reward_model import ScratchRewardTrainer
from training.tuning.sft import ScratchSFTTrainer, encode_sample

QUESTION, ANSWER, OTHER = "Body of f:\n", "\n    return 1", "\treturn <|im_end|>"
PROMPT, CHOSEN, REJECTED = (
    [{"role": role, "content": text}]
    for role, text in (("user", QUESTION), ("assistant", ANSWER), ("assistant", OTHER))
)
FORMS = {"text": (QUESTION, ANSWER, OTHER), "messages": (PROMPT, CHOSEN, REJECTED)}


@pytest.fixture(scope="module")
def tokenizer():
    """One that merges a line break with the whitespace after it."""
    made = foreign(byte_level(JOINS))
    made.chat_template = CHAT_TEMPLATE
    return made


def prepared(trainer_class, config_class, tokenizer, record, **attributes):
    """The token ids of a record as the trainer prepares it, without a model."""
    args = config_class(output_dir="unused", use_cpu=True, bf16=False, report_to="none", max_length=64)
    trainer = trainer_class.__new__(trainer_class)
    trainer.context_length = None
    for name, value in attributes.items():
        setattr(trainer, name, value)
    others = (False, None) if trainer_class is ScratchSFTTrainer else ()
    (row,) = trainer._prepare_dataset(Dataset.from_list([record]), tokenizer, args, *others, "train")
    return row


def sft(tokenizer, prompt, answer, _):
    record = {"prompt": prompt, "completion": answer}
    row = prepared(ScratchSFTTrainer, SFTConfig, tokenizer, record, chat_template=None, completion_only_loss=True)
    start = next(place for place, label in enumerate(row["labels"]) if label != IGNORE_INDEX)
    return row["input_ids"][:start], [row["input_ids"][start:]]


def sft_messages(tokenizer, prompt, answer, _):
    record = {"messages": prompt + answer}
    args = {"chat_template": None, "completion_only_loss": False}
    row = prepared(ScratchSFTTrainer, lambda **o: SFTConfig(assistant_only_loss=True, **o), tokenizer, record, **args)
    scored = [place for place, label in enumerate(row["labels"]) if label != IGNORE_INDEX]
    return row["input_ids"][: scored[0]], [row["input_ids"][scored[0] :]]


def dpo(tokenizer, prompt, chosen, rejected):
    record = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    row = prepared(ScratchDPOTrainer, DPOConfig, tokenizer, record)
    return row["prompt_ids"], [row["chosen_ids"], row["rejected_ids"]]


def kto(tokenizer, prompt, chosen, _):
    record = {"prompt": prompt, "completion": chosen, "label": True}
    weights = {"desirable_weight": 1.0, "undesirable_weight": 1.0}
    row = prepared(ScratchKTOTrainer, KTOConfig, tokenizer, record, calculate_KL=True, **weights)
    assert row["label"] is True and row["KL_completion_ids"] == row["completion_ids"]
    return row["prompt_ids"], [row["completion_ids"]]


def orpo(tokenizer, prompt, chosen, rejected):
    trainer = ScratchORPOTrainer.__new__(ScratchORPOTrainer)
    trainer.processing_class, trainer.max_length = tokenizer, 64
    args = ORPOConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none")
    data = Dataset.from_list([{"prompt": prompt, "chosen": chosen, "rejected": rejected}])
    row = trainer.tokenize_row(encode_dataset(data, encode_record, args, "train", tokenizer=tokenizer)[0])
    answers = []
    for side in ("chosen", "rejected"):
        ids, labels = row[f"{side}_input_ids"], row[f"{side}_labels"]
        start = len(row["prompt_input_ids"])
        assert ids[:start] == row["prompt_input_ids"] and ids[start:] == labels[start:]
        assert labels[:start] == [IGNORE_INDEX] * start and ids[-1] == tokenizer.eos_token_id
        answers.append(ids[start:])
    return row["prompt_input_ids"], answers


def reward(tokenizer, prompt, chosen, rejected):
    record = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    row = prepared(ScratchRewardTrainer, RewardConfig, tokenizer, record)
    start = len(encode_prompt(tokenizer, prompt))
    assert row["chosen_ids"][:start] == row["rejected_ids"][:start]
    return row["chosen_ids"][:start], [row["chosen_ids"][start:], row["rejected_ids"][start:]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trainer", [sft, sft_messages, dpo, kto, orpo, reward])
def test_the_answer_follows_the_prompt_of_inference(tokenizer, trainer, form, capsys):
    if trainer is sft_messages and form == "text":
        return
    prompt, *answers = FORMS[form]
    shown, continued = trainer(tokenizer, *FORMS[form])
    assert shown == encode_prompt(tokenizer, prompt)
    for ids, answer in zip(continued, (ANSWER, OTHER), strict=False):
        assert tokenizer.decode(ids).startswith(answer)
        end = "</s>" if form == "text" else "<|im_end|>"
        assert ids[len(tokenizer(answer, split_special_tokens=True)["input_ids"])] == tokenizer.convert_tokens_to_ids(
            end
        )
    assert "differently" not in capsys.readouterr().out


def test_a_template_that_shows_another_prompt_is_told(tokenizer, capsys):
    template = CHAT_TEMPLATE.replace("'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>\\n'")
    assert template != CHAT_TEMPLATE
    record = {
        "prompt": PROMPT,
        "chosen": CHOSEN,
        "rejected": REJECTED,
        "chat_template_kwargs": {"chat_template": template},
    }
    args = DPOConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none")
    encode_dataset(Dataset.from_list([record]), encode_pairs, args, "train", tokenizer=tokenizer)
    assert "train: in 1 of 1 records the chat template writes a prompt differently" in capsys.readouterr().out


@pytest.mark.parametrize("form", FORMS)
def test_a_reward_model_scores_what_it_was_trained_on(tokenizer, form):
    """In GRPO and RLOO, where TRL would tokenize prompt and completion as one text, without its end."""
    prompt, *answers = FORMS[form]
    tokenizer.pad_token = "<s>"
    batch = RewardBatch(tokenizer, [prompt, prompt], answers, {})
    assert batch.apply_chat_template(PROMPT + CHOSEN, tools=None, tokenize=False) == ""
    trained = encode_whole_pairs({"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}, tokenizer)
    read = batch(text=["", ""], padding=True)
    for ids, mask, side in zip(read["input_ids"], read["attention_mask"], ("chosen_ids", "rejected_ids"), strict=True):
        assert ids[mask.bool()].tolist() == trained[side] and mask[0] == 1
    assert len(trained["chosen_ids"]) != len(trained["rejected_ids"])  # one of them is padded


def test_special_tokens_in_text_are_told(tokenizer, capsys):
    """Text that a template has rendered already. In messages they are words like others."""
    rendered = {"prompt": "<|im_start|>user\nWhere?", "chosen": "Here.", "rejected": "There."}
    ended = {"prompt": "Where?", "chosen": "Here.</s>", "rejected": "There.</s>"}
    messages = {"prompt": PROMPT, "chosen": CHOSEN, "rejected": REJECTED}
    args = DPOConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none")
    for records, told in (([ended, rendered], True), ([ended], False), ([messages], False)):
        encoded = encode_dataset(Dataset.from_list(records), encode_pairs, args, "train", tokenizer=tokenizer)
        line = "train: 1 of 2 records spell special tokens such as <|im_start|> in text"
        assert (line in capsys.readouterr().out) == told and "spelled" not in encoded.column_names


def test_a_text_column_does_not_hide_the_completion(tokenizer):
    record = {"prompt": "Where?", "completion": " Here."}
    options = {"tokenizer": tokenizer, "text_column": "prompt", "chat_template": None, "marked": False}
    assert 1 in encode_sample(record, **options)["completion_mask"]
    alone = encode_sample({"prompt": "Where?"}, **options)
    assert tokenizer.decode(alone["input_ids"]) == "Where?</s>" and "completion_mask" not in alone


def test_unknown_characters_are_told(tmp_path, capsys):
    """A record with one is counted; with a tokenizer that has no token for them, it is named."""
    records = [{"prompt": "Where?", "chosen": answer, "rejected": "No."} for answer in ("Here.", "At the café.")]
    args = DPOConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none")
    options = {"tokenizer": character_tokenizer(tmp_path / "new", unknown=True)}
    encode_dataset(Dataset.from_list(records), encode_pairs, args, "train", **options)
    assert "train: 1 of 2 records have characters that the tokenizer does not know" in capsys.readouterr().out
    options = {"tokenizer": character_tokenizer(tmp_path / "old", unknown=False)}
    with refused("datasets", "record 2 of train", "'é'"):
        encode_dataset(Dataset.from_list(records), encode_pairs, args, "train", **options)


def test_an_end_token_is_not_an_unknown_character(tokenizer, capsys):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.unk_token = tokenizer.eos_token
    data = Dataset.from_list([{"prompt": "Where?", "chosen": "Here.", "rejected": "There."}])
    args = DPOConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none")
    encode_dataset(data, encode_pairs, args, "train", tokenizer=tokenizer)
    assert "does not know" not in capsys.readouterr().out
