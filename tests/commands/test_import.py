"""`scratch import`: stock models as models of ours, whatever a person may point it at."""

import json
import shutil

import pytest
import torch
from messages import refused
from safetensors.torch import load_file, save_file
from tiny_model import stir
from tiny_stages import TRAINING, flags, forget_accelerate, write_data, write_model, write_tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    MistralConfig,
)

import training.commands.export as export
from modeling_scratch import ScratchForCausalLM
from training.commands.import_model import main
from training.common.errors import UserError
from training.publishing.lineage import lineage
from training.stages.provenance import read_provenance


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A stock Llama with its tokenizer, as anybody may have it: no provenance."""
    place = tmp_path_factory.mktemp("import")
    tokenizer = write_tokenizer(place / "tokenizer")
    write_model(place / "model", tokenizer, preset="llama")
    export.main(flags({"output_dir": place / "llama", "model": place / "model", "to": "llama"}))
    (place / "llama" / "provenance.json").unlink()
    settings = GenerationConfig(do_sample=True, temperature=0.6, eos_token_id=[0, 3], pad_token_id=1)
    settings.save_pretrained(place / "llama")
    return place


@pytest.fixture
def place(outputs, tmp_path, monkeypatch):
    shutil.copytree(outputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(model, output_dir="new"):
    main(flags({"model": model, "output_dir": output_dir}))


def same_files(first, second, names):
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_there_and_back(place, capsys):
    """Bit for bit, through both doors, and the files around the weights as they were."""
    run("llama")
    printed = capsys.readouterr().out
    assert "wrote new (llama, 0.0M parameters, with tokenizer; logits within " in printed
    assert "next: scratch export --model new --output_dir new-export\n" in printed
    ours = AutoModelForCausalLM.from_pretrained("new")
    assert type(ours) is ScratchForCausalLM
    assert (place / "new" / "modeling_scratch.py").is_file()
    around = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"]
    assert same_files(place / "llama", place / "new", around)
    provenance = read_provenance("new")
    assert provenance["stage"] == "import" and 0 <= provenance["metrics"]["difference"] <= 1e-4

    export.main(flags({"output_dir": "back", "model": "new", "to": "llama"}))
    assert same_files(place / "llama", place / "back", ["config.json", *around])
    before, after = load_file(place / "llama" / "model.safetensors"), load_file(place / "back" / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)

    run("llama")
    assert "is up to date, skipped" in capsys.readouterr().out


def test_a_model_in_several_files(place):
    model = AutoModelForCausalLM.from_pretrained("llama")
    (place / "llama" / "model.safetensors").unlink()
    model.save_pretrained("llama", max_shard_size="20KB")
    assert len(list((place / "llama").glob("model-*.safetensors"))) > 1
    run("llama")
    ours = AutoModelForCausalLM.from_pretrained("new")
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_gpt2_with_a_tokenizer_of_its_own_kind(place):
    """The Hub's GPT-2 leaves it to the kind of model which tokenizer class it has, and which tokens are special."""
    tokenizer = json.loads((place / "tokenizer" / "tokenizer.json").read_text())["model"]
    vocab = {token: index for index, token in enumerate([*list(tokenizer["vocab"])[4:], "<|endoftext|>"])}
    stock = GPT2Tokenizer(vocab=vocab, merges=[tuple(merge) for merge in tokenizer["merges"]])
    stock.save_pretrained("gpt2")
    (place / "gpt2" / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    sizes = {"vocab_size": len(vocab), "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}
    model = stir(GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=len(vocab) - 1, eos_token_id=len(vocab) - 1)))
    model.save_pretrained("gpt2")
    run("gpt2")
    assert same_files(place / "gpt2", place / "new", ["tokenizer.json"])
    expected, found = AutoTokenizer.from_pretrained("gpt2"), AutoTokenizer.from_pretrained("new")
    assert type(found) is type(expected) and found.eos_token_id == expected.eos_token_id == len(vocab) - 1
    assert found("the cat<|endoftext|>")["input_ids"] == expected("the cat<|endoftext|>")["input_ids"]
    assert (found.model_max_length, found.padding_side) == (32, "left")
    assert AutoModelForCausalLM.from_pretrained("new").config.intermediate_size == 4 * 32


def test_a_model_without_a_tokenizer(place, capsys):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (place / "llama" / name).unlink()
    run("llama")
    assert "without tokenizer; logits" in capsys.readouterr().out
    export.main(flags({"output_dir": "back", "model": "new", "to": "llama"}))
    assert not (place / "back" / "tokenizer_config.json").exists()


def test_other_stages_start_from_it(place):
    """Tuning and export, whose lineage begins with it."""
    from training.commands.sft import main as sft

    run("llama")
    write_data(place / "data", place / "tokenizer")
    data = [{"path": "json", "data_files": {"train": "data/instructions/train.jsonl"}}]
    options = {"model_name_or_path": "new", "output_dir": "sft", "datasets": json.dumps(data), **TRAINING}
    sft(flags(options | {"assistant_only_loss": "true"}))
    forget_accelerate()
    assert type(AutoModelForCausalLM.from_pretrained("sft")) is ScratchForCausalLM
    assert same_files(place / "llama", place / "sft", ["generation_config.json"])
    assert [record["stage"] for record in lineage(place / "sft")] == ["import", "sft"]
    export.main(flags({"output_dir": "out", "model": "sft", "to": "llama"}))
    assert "| import |" in (place / "out" / "README.md").read_text()


def test_weights_that_would_have_to_be_unpickled_are_not(place):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    (place / "llama" / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Trap()}, place / "llama" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no model.safetensors \(pytorch_model.bin is not read: unpickling runs code"):
        run("llama")
    assert not (place / "new").exists() and not (place / "new.partial").exists()


def rewrite(file, **changes):
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(content))


def drop_a_tensor(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def add_a_tensor(folder):
    weights = load_file(folder / "model.safetensors") | {"model.layers.1.mlp.router.weight": torch.ones(2)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def spoil_the_index(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"lm_head.weight": []}}')


def lose_a_shard(folder):
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    min(folder.glob("model-*.safetensors")).unlink()


def test_a_folder_without_a_model_is_refused_unread(tmp_path, monkeypatch):
    """Hashing a whole disk would take hours."""
    monkeypatch.setattr("training.commands.import_model.digest", lambda *_: pytest.fail("hashed"))
    with refused("model", tmp_path, "no config.json"):
        main(["--model", str(tmp_path), "--output_dir", str(tmp_path / "new")])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop_a_tensor, "model.layers.1.mlp.up_proj.weight is missing"),
        (add_a_tensor, "model.layers.1.mlp.router.weight is not a tensor of a llama"),
        (lose_a_shard, "no model-00001-of-"),
        (spoil_the_index, "model.safetensors.index.json is damaged"),
        (lambda folder: rewrite(folder / "config.json", hidden_size=64), "embed_tokens.weight has shape"),
        (lambda folder: rewrite(folder / "config.json", hidden_act="gelu"), "hidden_act is 'gelu'"),
        (lambda folder: rewrite(folder / "config.json", num_key_value_heads="one"), "num_key_value_heads"),
        (lambda folder: rewrite(folder / "config.json", rope_parameters={"rope_type": "yarn"}), "rope.*'factor'"),
        (lambda folder: rewrite(folder / "config.json", rope_scaling={"type": "su", "factor": 2.0}), "rope_type.*'su'"),
        (lambda folder: rewrite(folder / "config.json", partial_rotary_factor=0.5), "partial_rotary_factor must be 1"),
        (
            lambda folder: rewrite(folder / "config.json", model_type="t5"),
            "is a t5; scratch imports llama, qwen3, gpt2",
        ),
        (lambda folder: MistralConfig().save_pretrained(folder), "is a mistral; scratch imports llama, qwen3, gpt2"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
        (lambda folder: (folder / "config.json").write_text('{"a":' * 5000), "config.json is damaged"),
        (lambda folder: rewrite(folder / "config.json", model_type={}), "config.json is damaged"),
        (lambda folder: rewrite(folder / "config.json", architectures=[[]]), "config.json: "),
        (lambda folder: rewrite(folder / "config.json", dtype=["float32"]), "config.json: "),
        (lambda folder: (folder / "generation_config.json").write_text("{oops"), "generation_config.json is damaged"),
        (lambda folder: (folder / "config.json").unlink(), "holds no model"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"nothing"), "model.safetensors is damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors; weights are taken from"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_anything_is_written(place, damage, said):
    damage(place / "llama")
    with pytest.raises(UserError, match=said) as caught:
        run("llama")
    assert "\n" not in str(caught.value) and "llama" in str(caught.value)
    assert not (place / "new").exists() and not (place / "new.partial").exists()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("model", "'model': model is already a scratch model"),
        ("runs/nowhere", "'model': no such file or folder: runs/nowhere"),
        ("tokenizer", "holds no model"),
        ("nobody/nothing", "there is no folder nobody/nothing, and the download from the Hub failed"),
    ],
)
def test_what_is_no_stock_model(place, monkeypatch, model, said):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=said) as caught:
        run(model)
    assert "\n" not in str(caught.value)
