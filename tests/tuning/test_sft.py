"""What SFT learns from, token by token: masks of the batches that the real trainer draws, packing, counts, preview."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from messages import refused
from tiny_stages import flags, forget_accelerate, write_model, write_tokenizer
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM
from trl import SFTTrainer

from training.commands.sft import main
from training.common.errors import UserError
from training.model_io.model_folder import TOKENIZER_FILES
from training.tuning.dataset_formats import INSTRUCTIONS
from training.tuning.pipeline.datasets import load_splits
from training.tuning.pipeline.model import load_model
from training.tuning.pipeline.recipe import parse_recipe, read_recipe
from training.tuning.pipeline.training import build_trainer
from training.tuning.sft import ScratchSFTTrainer, preview

SYSTEM, FIRST, SECOND = (
    {"role": "system", "content": "Speak of cats."},
    {"role": "user", "content": "Where is the cat?\nassistant\nOn the mat?"},
    {"role": "user", "content": "And the other one?"},
)
ANSWER, OTHER, EMPTY = (
    {"role": "assistant", "content": "The cat sat on a mat.\n\nuser\nNo, assistant."},
    {"role": "assistant", "content": "Под столом 🐈, under the table."},
    {"role": "assistant", "content": ""},
)
CONVERSATIONS = [
    [FIRST, ANSWER],
    [SYSTEM, FIRST, ANSWER],
    [SYSTEM, FIRST, OTHER, SECOND, ANSWER],
    [FIRST, ANSWER, SECOND, {"role": "tool", "content": "table: 1"}, OTHER, EMPTY],
    [ANSWER, SECOND, OTHER, FIRST],
]


pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    place = tmp_path_factory.mktemp("outputs")
    write_tokenizer(place / "tokenizer")
    for preset in ("qwen3", "gpt2", "scratch"):
        dials = {"num_key_value_heads": 2} if preset == "gpt2" else {}
        if preset == "qwen3":
            dials = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
        dials |= {"max_position_embeddings": 256}
        write_model(place / preset, place / "tokenizer", preset=preset, dials=dials)
    return place


def arguments(records: list[dict], **options: object) -> list[str]:
    with open("records.jsonl", "w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    required = {
        "model_name_or_path": "qwen3",
        "output_dir": "new",
        "datasets": '[{"path": "json", "data_files": {"train": "records.jsonl"}}]',
        "use_cpu": "true",
        "bf16": "false",
        "max_length": 256,
        "per_device_train_batch_size": 3,
        "save_strategy": "no",
        "max_steps": 1,
    }
    return flags(required | options)


def trainer_of(records: list[dict], trainer_class: type = ScratchSFTTrainer, **options: object) -> ScratchSFTTrainer:
    recipe = parse_recipe("sft", *read_recipe("sft", arguments(records, **options), ""))
    return build_trainer(trainer_class, recipe, load_splits(recipe, INSTRUCTIONS), *load_model(recipe))


def refusal(records: list[dict], **options: object) -> str:
    with pytest.raises(UserError) as told:
        main(arguments(records, **options))
    assert "\n" not in str(told.value) and len(str(told.value)) < 300
    return str(told.value)


def batches_by_sample(trainer: ScratchSFTTrainer) -> dict[tuple[int, ...], list[int]]:
    """Token ids of every sample in the batches of an epoch, to its labels. Padding is left out, and is unscored."""
    found = {}
    for batch in trainer.get_train_dataloader():
        for row in range(len(batch["input_ids"])):
            ids, labels = batch["input_ids"][row], batch["labels"][row]
            if "position_ids" in batch:
                assert "attention_mask" not in batch
                starts = [*(batch["position_ids"][row] == 0).nonzero().flatten().tolist(), len(ids)]
                pieces = list(zip(starts, starts[1:], strict=False))
            else:
                length = int(batch["attention_mask"][row].sum())
                assert (labels[length:] == -100).all()
                pieces = [(0, length)]
            for start, end in pieces:
                found[tuple(ids[start:end].tolist())] = labels[start:end].tolist()
    return found


def expected(text: str, spans: list[tuple[int, int]], limit: int | None = None) -> tuple[tuple[int, ...], list[int]]:
    """Token ids of a rendered text, and labels: those of the tokens inside the spans of characters, -100 elsewhere."""
    encoded = AutoTokenizer.from_pretrained("tokenizer")(text, return_offsets_mapping=True, add_special_tokens=False)
    inside = [any(start <= at and end <= stop for start, stop in spans) for at, end in encoded["offset_mapping"]]
    ids = encoded["input_ids"]
    return tuple(ids[:limit]), [token if scored else -100 for token, scored in zip(ids, inside, strict=True)][:limit]


def rendered(messages: list[dict], **options: object) -> str:
    """As ChatML is defined, not as the template under test has it."""
    text = "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
    return text + "<|im_start|>assistant\n" * bool(options.get("open"))


def assistant_spans(text: str) -> list[tuple[int, int]]:
    """What stands between an assistant's head and the end of its turn, that end included."""
    return [turn.span(1) for turn in re.finditer(r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)", text, re.DOTALL)]


def unfirst(labels: list[int]) -> list[int]:
    """Nothing foretells the first token of a packed sample."""
    return [-100, *labels[1:]]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("limit", [256, 50])
def test_assistant_only_loss(place, packing, limit):
    records = [{"messages": messages} for messages in CONVERSATIONS]
    trainer = trainer_of(records, assistant_only_loss="true", packing=str(packing).lower(), max_length=limit)
    wanted = {}
    for messages in CONVERSATIONS:
        text = rendered(messages)
        assert len(assistant_spans(text)) == sum(message["role"] == "assistant" for message in messages)
        ids, labels = expected(text, assistant_spans(text), limit)
        if any(label != -100 for label in labels[1:]):  # else it is left out
            wanted[ids] = unfirst(labels) if packing else labels
    assert len(wanted) == {256: 5, 50: 2}[limit]  # two are the same by then, two have lost their answer
    assert batches_by_sample(trainer) == wanted


@pytest.mark.parametrize("packing", [False, True])
def test_completion_only_loss(place, packing):
    """Conversational prompt and completion: scored from the end of the opened turn to the end of the text."""
    records, wanted = [], {}
    for messages in CONVERSATIONS[:4]:
        for cut in (index for index, message in enumerate(messages) if message["role"] == "assistant" and index):
            records.append({"prompt": messages[:cut], "completion": messages[cut : cut + 1]})
            text, opened = rendered(messages[: cut + 1]), len(rendered(messages[:cut], open=True))
            ids, labels = expected(text, [(opened, len(text))])
            wanted[ids] = unfirst(labels) if packing else labels
    assert batches_by_sample(trainer_of(records, packing=str(packing).lower())) == wanted
    assert len(wanted) == 6
    forget_accelerate()
    ids = batches_by_sample(trainer_of(records, completion_only_loss="false"))
    assert ids == {ids: list(ids) for ids in wanted}  # everything is scored if that is asked for


def test_text_pairs_and_plain_text(place):
    pairs = [{"prompt": f"The cat sat on {n}", "completion": " a mat and looked."} for n in (1, 22)]
    wanted = dict(
        expected(pair["prompt"] + pair["completion"] + "<|endoftext|>", [(len(pair["prompt"]), 10**6)])
        for pair in pairs
    )
    assert batches_by_sample(trainer_of(pairs)) == wanted
    forget_accelerate()
    texts = [{"story": "The cat sat."}, {"story": "A mat."}]
    wanted = dict(expected(record["story"] + "<|endoftext|>", [(0, 10**6)]) for record in texts)
    assert batches_by_sample(trainer_of(texts, dataset_text_field="story")) == wanted


RECORDS = [{"messages": messages} for messages in CONVERSATIONS]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("preset", ["qwen3", "gpt2", "scratch"])
def test_a_packed_sample_is_alone(place, preset, attention):
    """Logits to 1e-5 of the largest, and the loss of a step to 1e-6 of that of the same samples in a padded batch."""
    options = {"model_name_or_path": preset, "attn_implementation": attention, "assistant_only_loss": "true"}
    packed = trainer_of(RECORDS, packing="true", max_length=512 // 2, per_device_train_batch_size=5, **options)
    model = packed.model.eval()
    (batch,) = packed.get_train_dataloader()
    with torch.no_grad():
        together = model(**{key: value for key, value in batch.items() if key != "labels"}, use_cache=False).logits[0]
        starts = [*(batch["position_ids"][0] == 0).nonzero().flatten().tolist(), together.shape[0]]
        assert len(starts) == 6
        for start, end in zip(starts, starts[1:], strict=False):
            alone = model(batch["input_ids"][:, start:end]).logits[0]
            assert (together[start:end] - alone).abs().max() < 1e-5 * alone.abs().max()
        packed_loss = packed.compute_loss(model, dict(batch))
    forget_accelerate()

    padded = trainer_of(RECORDS, per_device_train_batch_size=5, **options)
    (batch,) = padded.get_train_dataloader()
    with torch.no_grad():
        assert padded.compute_loss(padded.model.eval(), dict(batch)).item() == pytest.approx(
            packed_loss.item(), rel=1e-6
        )


def stock_model_that_ignores_positions() -> None:
    """Bloom has no position ids, and takes packed samples for one."""
    config = BloomConfig(vocab_size=280, hidden_size=32, n_layer=2, n_head=2, pad_token_id=1, eos_token_id=0)
    BloomForCausalLM(config).save_pretrained("bloom")
    for file in TOKENIZER_FILES[:3]:
        shutil.copy(f"tokenizer/{file}", f"bloom/{file}")


def test_packing_that_would_leak_is_refused(place):
    stock_model_that_ignores_positions()
    assert trainer_of(RECORDS, model_name_or_path="bloom", max_steps=1)
    line = refusal(RECORDS, model_name_or_path="bloom", packing="true")
    assert line.startswith("'packing'") and "attend to each other in this model" in line and "leave packing out" in line
    assert "'packing_strategy': wrapped joins samples" in refusal(RECORDS, packing="true", packing_strategy="wrapped")
    assert not (place / "new.partial").exists()


def test_what_is_cut_is_counted(place, capsys):
    for options, lines in (
        ({}, []),
        ({"max_length": 50}, ["5 exceed max_length 50 and are truncated at their end", "2 have no scored token left"]),
        (
            {"max_length": 50, "truncation_mode": "keep_end"},
            ["5 exceed max_length 50 and are truncated at their start"],
        ),
        (
            {"max_length": 50, "packing": "true", "packing_strategy": "bfd_split"},
            ["5 exceed max_length 50 and are split over several sequences"],
        ),
    ):
        trainer_of(RECORDS, assistant_only_loss="true", **options)
        forget_accelerate()
        head, *rest = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sft: train: ")]
        assert head.startswith("sft: train: 5 samples of ") and "tokens are scored" in head
        assert [
            line.removeprefix("sft: train: ")[: len(start)] for line, start in zip(rest, lines, strict=True)
        ] == lines
    line = refusal(RECORDS, assistant_only_loss="true", max_length=1)
    assert line.startswith("'max_length': no sample of train has a scored token within 1 tokens")
    long = [{"messages": [FIRST, {"role": "assistant", "content": "cat " * 400}]}, *RECORDS]
    line = refusal(long, max_length=1024)
    assert "1 samples of train exceed the model's 256 positions (max_position_embeddings); set max_length: 256" in line
    assert not (place / "new.partial").exists()


def strip_template(replace: tuple[str, str] | None) -> None:
    file = Path("qwen3/chat_template.jinja")
    if replace is None:
        file.unlink()
    else:
        file.write_text(re.sub(*replace, file.read_text()))


def test_a_template_without_marks(place):
    strip_template((r"\{%- (end)?generation %\}", ""))
    line = refusal(RECORDS, assistant_only_loss="true")
    assert line.startswith("'assistant_only_loss': the chat template does not mark the answers ({% generation %}")
    assert trainer_of(RECORDS)  # without it all is scored, and no marks are asked for
    forget_accelerate()
    strip_template(None)
    Path("qwen3/provenance.json").unlink()  # which lists the template: a model of others never had one
    assert "its tokenizer has no chat template" in refusal(RECORDS)


@pytest.mark.parametrize("packing", ["true", "false"])
def test_it_learns_what_the_stock_trainer_learns(place, packing):
    """To the bit: what is counted and tried changes nothing, neither the order nor a random draw."""
    options = {"max_steps": 4, "packing": packing, "shuffle_dataset": "true", "max_length": 110, "seed": 3}
    options |= {"use_peft": "true", "lora_target_modules": "all-linear", "lora_dropout": 0.2}
    learned = []
    for trainer_class in (SFTTrainer, ScratchSFTTrainer):
        trainer = trainer_of(RECORDS, trainer_class, **options)
        trainer.train()
        learned.append({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})
        forget_accelerate()
    assert all(torch.equal(learned[0][name], learned[1][name]) for name in learned[0])


def test_a_stream(place):
    """Of unknown length: nothing is counted, and it is learned all the same."""
    main(arguments([{"conversations": messages} for messages in CONVERSATIONS], streaming="true"))
    assert (place / "new" / "model.safetensors").is_file()


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}
TOOLS = [{"type": "function", "function": {"name": "weather"}}]
CALLING = [
    {"role": "user", "content": "Warm in Ulm?"},
    {"role": "assistant", "content": None, "reasoning_content": "I look.", "tool_calls": [CALL]},
    {"role": "tool", "content": "21 C"},
    {"role": "assistant", "content": "Yes."},
]


def test_tool_calls_are_learned(place, capsys):
    preview(trainer_of([{"messages": CALLING}], assistant_only_loss="true"))
    assert (
        "<|im_start|>assistant\n⟦<think>\nI look.\n</think>\n\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call><|im_end|>⟧\n'
        "<|im_start|>tool\n21 C<|im_end|>\n<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n"
    ) in capsys.readouterr().out
    forget_accelerate()
    with refused("max_length", "1 samples of train exceed the model's 256 positions"):  # with the tool's definition
        trainer_of([{"messages": CALLING, "tools": TOOLS}], assistant_only_loss="true", max_length=512)


def test_what_the_template_would_leave_out(place):
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    Path("qwen3/chat_template.jinja").write_text(template)
    records = [{"messages": [FIRST, ANSWER]}, {"messages": CALLING, "tools": TOOLS}]
    with refused("datasets", "record 2 of train", "does not render reasoning_content and tool calls and tools"):
        main(arguments(records))


def test_tokens_of_another_tokenizer(place):
    with refused("datasets", "record 2 of train", "'input_ids' has the id 99999", "280 tokens"):
        main(arguments([{"input_ids": [5, 6, 7]}, {"input_ids": [5, 6, 99999]}]))
    with refused("datasets", "record 1 of train", "'labels' has the id 280", "280 tokens"):
        main(arguments([{"input_ids": [5, 6, 7], "labels": [-100, 6, 280]}]))


def test_no_answer_to_learn(place):
    line = refusal([*RECORDS, {"messages": [FIRST]}], assistant_only_loss="true")
    assert line.startswith("'assistant_only_loss': record 6 of train has no message of the assistant")


def test_a_template_of_the_recipe_goes_with_the_model(place):
    """What the model was tuned with is what it is published with."""
    template = (place / "qwen3" / "chat_template.jinja").read_text().replace("<|im_start|>", "<|im_start|> ")
    (place / "own.jinja").write_text(template)
    main(arguments(RECORDS, assistant_only_loss="true", chat_template_path="own.jinja", eos_token="<|im_end|>"))
    tokenizer = AutoTokenizer.from_pretrained("new")
    assert tokenizer.chat_template == template and tokenizer.eos_token == "<|im_end|>"
    generation = json.loads((place / "new" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [0, 3] and generation["do_sample"] is True
    assert json.loads((place / "new" / "tokenizer_config.json").read_text())["tokenizer_class"] == (
        "PreTrainedTokenizerFast"
    )


def test_preview(place, capsys):
    """Marks around exactly what the loss falls on, and nothing written."""
    records = [{"instruction": "Where?", "input": "The cat.", "output": "On a mat."}] * 2 + [{"instruction": "Who?"}]
    records[2] |= {"input": "", "output": "Cats."}
    main([*arguments(records), "--preview"])
    printed = capsys.readouterr().out
    assert "sft: data format: alpaca (instruction, input, output)\n" in printed
    sample = "<|im_start|>user\nWhere?\n\nThe cat.<|im_end|>\n<|im_start|>assistant\n⟦On a mat.<|im_end|>\n⟧\n"
    assert printed.count(sample) == 2 and printed.count("--- sample ") == 2 and "Who?" not in printed
    assert not list(place.glob("new*"))


def test_preview_of_packed_samples(place, capsys):
    trainer = trainer_of(RECORDS, packing="true", assistant_only_loss="true")
    capsys.readouterr()
    preview(trainer, count=9)
    printed = capsys.readouterr().out
    assert printed.count("--- sample ") == 5  # each by itself
    for messages in CONVERSATIONS:
        assert re.sub("([^\n]*<.im_end.>)", r"\1", rendered(messages)) in printed.replace("⟦", "").replace("⟧", "")
    assert "⟦The cat sat on a mat.\n\nuser\nNo, assistant.<|im_end|>⟧\n" in printed


def test_preview_in_colour(place, capsys, monkeypatch):
    trainer = trainer_of(RECORDS[:1], assistant_only_loss="true")
    capsys.readouterr()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    preview(trainer)
    assert "\033[32mThe cat sat on a mat." in capsys.readouterr().out
