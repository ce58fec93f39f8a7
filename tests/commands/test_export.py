"""`scratch export`: the directory to publish and its card."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from messages import refused
from peft import LoraConfig, get_peft_model
from tiny_stages import VOCAB_SIZE, flags, write_model, write_tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Qwen3ForCausalLM,
)

from modeling_scratch.modeling_scratch import AUTO_CLASSES
from training.commands.export import main
from training.common.errors import UserError
from training.model_io import model_folder
from training.model_io.model_folder import save_model
from training.model_io.tokenizers import open_tokenizer
from training.publishing.lineage import lineage
from training.stages.provenance import digest, read_provenance
from training.stages.stage import Stage


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base model, what sft and dpo made of it, an evaluation, and the export of the last."""
    place = tmp_path_factory.mktemp("export")
    tokenizer = write_tokenizer(place / "tokenizer")
    write_model(place / "pretrain", tokenizer)
    write_model(place / "sft", tokenizer, "sft", model_name_or_path=str(place / "pretrain"))
    write_model(place / "dpo", tokenizer, "dpo", model_name_or_path=str(place / "sft"))
    measured = {f"models.{name}": digest(place / name) for name in ("sft", "dpo")}
    stage = Stage("evaluate", str(place / "evaluate"), {}, measured, [])
    results = "# Evaluation\n\n| | bits per byte |\n|---|---|\n| dpo | 1.23 |\n\n## mmlu\n\n| task |\n"
    (stage.begin() / "results.md").write_text(results)
    stage.finish({}, wrote="results")
    card = {"description": "It writes.", "language": "no", "license": "mit"}
    export(place, model="dpo", evaluation=str(place / "evaluate"), **card)
    return place


def export(place, model, **options):
    main(flags({"output_dir": place / "export", "model": place / model, "name": "tiny", **options}))


def test_the_card(place):
    card = ModelCard.load(place / "export" / "README.md")
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "text-generation"
    assert card.data.language == "no" and card.data.license == "mit"  # Norwegian: a truth value if it were not quoted
    assert set(card.data.tags) == {"scratch", "custom_code"}
    text = card.text
    assert text.lstrip().startswith("# tiny\n\nIt writes.\n\n0.0M parameters.")
    assert 'pipeline("text-generation", "YOUR_NAME/tiny", trust_remote_code=True)' in text and '"role": "user"' in text
    assert "## Evaluation\n\n| | bits per byte |" in text and "| dpo | 1.23 |" in text
    assert text.count("Evaluation") == 1 and "\n### mmlu\n" in text
    assert "This model is dpo in the table." in text
    made = text[text.index("## How it was made") :]
    assert [line.split(" | ")[0] for line in made.splitlines() if line.startswith("| ")] == [
        "| stage",
        "| pretrain",
        "| sft",
        "| dpo",
    ]
    assert "`scratch dpo --model_name_or_path=" in made and "torch" in made


@pytest.mark.parametrize("head, noted", [(16, True), (32, False)])
def test_heads_that_vllm_lacks_are_noted(place, tmp_path, capsys, head, noted):
    write_model(tmp_path / "model", place / "tokenizer", dials={"head_dim": head})
    main(flags({"output_dir": tmp_path / "out", "model": tmp_path / "model", "to": "qwen3"}))
    assert ("export: vLLM on a processor has no heads of 16, only of 32" in capsys.readouterr().out) == noted


def test_the_card_of_a_base_model(place, tmp_path):
    main(flags({"output_dir": tmp_path / "base", "model": place / "pretrain"}))
    card = ModelCard.load(tmp_path / "base" / "README.md")
    assert "Evaluation" not in card.text and 'generator("Once")' in card.text
    assert card.data.language is None and card.data.license is None


def test_scores_of_other_models_are_rejected(place, tmp_path):
    with refused("evaluation", place / "evaluate", place / "pretrain", "sft, dpo"):
        export(tmp_path, model=place / "pretrain", evaluation=str(place / "evaluate"))
    assert not list(tmp_path.iterdir())


def test_an_imported_base_model_is_a_base_model(place, tmp_path):
    write_model(tmp_path / "import", place / "tokenizer", "import", model=str(place / "pretrain"))
    export(tmp_path, model="import")
    assert "A base language model, trained from scratch." in (tmp_path / "export/README.md").read_text()


@pytest.mark.parametrize("name", ["my model", "me/model", 'a")', ""])
def test_a_name_must_be_that_of_a_repository(place, tmp_path, name):
    with refused("name", name):
        export(tmp_path, model=place / "pretrain", name=name)


def test_the_lineage(place):
    assert [record["stage"] for record in lineage(place / "dpo")] == ["pretrain", "sft", "dpo"]


def test_a_lineage_that_begins_on_the_hub(place, tmp_path):
    write_model(tmp_path / "sft", place / "tokenizer", "sft", model_name_or_path="someone/model")
    assert [record["stage"] for record in lineage(tmp_path / "sft")] == ["sft"]


def test_what_other_programs_read(place):
    config = json.loads((place / "export" / "config.json").read_text())
    assert config["use_cache"] is True
    assert set(config["auto_map"]) == {"AutoConfig", *AUTO_CLASSES}
    for reference in config["auto_map"].values():
        assert (place / "export" / f"{reference.split('.')[0]}.py").is_file()
    tokenizer = AutoTokenizer.from_pretrained(place / "export")
    generation = json.loads((place / "export" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert generation["pad_token_id"] == tokenizer.pad_token_id
    assert tokenizer.model_max_length == config["max_position_embeddings"] and tokenizer.padding_side == "left"
    assert read_provenance(place / "export")["stage"] == "export"


def test_the_weights_are_those_of_the_model(place):
    models = [AutoModelForCausalLM.from_pretrained(place / name) for name in ("dpo", "export")]
    weights = [model.state_dict() for model in models]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_directory_opens_without_this_package(place, tmp_path):
    """In a process that cannot import it, from a copy somewhere else."""
    shutil.copytree(place / "export", tmp_path / "somewhere")
    code = (
        "import sys; sys.modules['modeling_scratch'] = sys.modules['training'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained('somewhere', trust_remote_code=True)\n"
        "model = AutoModelForCausalLM.from_pretrained('somewhere', trust_remote_code=True)\n"
        "chat = [{'role': 'user', 'content': 'the cat'}]\n"
        "inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors='pt')\n"
        "longer = model.generate(**inputs, max_new_tokens=4).shape[1] > inputs['input_ids'].shape[1]\n"
        "print(longer, type(model).__module__)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("True transformers_modules.")


@pytest.mark.parametrize("name", ["evaluate", "tokenizer"])
def test_refuses_what_is_not_a_model(place, tmp_path, name):
    with pytest.raises(UserError, match=f"holds the output of '{name}'"):
        main(flags({"output_dir": tmp_path / "out", "model": place / name}))
    assert not list(tmp_path.iterdir())


def test_a_folder_without_provenance(place, tmp_path):
    """What any other program saved: the card cannot say how it was made."""
    shutil.copytree(place / "dpo", tmp_path / "copy")
    (tmp_path / "copy" / "provenance.json").unlink()
    main(flags({"output_dir": tmp_path / "out", "model": tmp_path / "copy"}))
    text = (tmp_path / "out" / "README.md").read_text()
    assert "A language model.\n" in text and '"role": "user"' in text and "How it was made" not in text
    with refused("model", tmp_path / "copy" / "config.json", "damaged"):
        (tmp_path / "copy" / "config.json").write_text("{")
        main(flags({"output_dir": tmp_path / "other", "model": tmp_path / "copy"}))
    with refused("model", "someone/model", "hf download"):
        main(flags({"output_dir": tmp_path / "other", "model": "someone/model"}))


# Runs where the package cannot be imported, and trusts no code.
ELSEWHERE = """
import sys; sys.modules["modeling_scratch"] = sys.modules["training"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
results = {}
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    chat = [{"role": "user", "content": "the cat"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=16, min_new_tokens=16)
    results[folder] = {"class": type(model).__name__, "tokens": tokens, "inputs": dict(inputs)}
torch.save(results, "results.pt")
"""
STOCK = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM", "gpt2": "GPT2LMHeadModel"}


@pytest.fixture(scope="module")
def stock(place, tmp_path_factory):
    """A folder with a model of ours of each architecture, its export to there, and what that says where we are not."""
    folder = tmp_path_factory.mktemp("stock")
    for to in STOCK:
        dials = {"num_key_value_heads": 2} if to == "gpt2" else {}
        source = write_model(folder / f"our-{to}", place / "tokenizer", "sft", preset=to, dials=dials)
        main(flags({"output_dir": folder / to, "model": source, "to": to}))
    process = subprocess.run([sys.executable, "-c", ELSEWHERE, *STOCK], cwd=folder, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return folder


@pytest.mark.parametrize("to", STOCK)
def test_a_stock_directory_gives_the_same_answers_without_this_package(stock, to):
    found = torch.load(stock / "results.pt")[to]
    assert found["class"] == STOCK[to]
    ours = AutoModelForCausalLM.from_pretrained(stock / f"our-{to}")
    expected = ours.generate(**found["inputs"], do_sample=False, max_new_tokens=16, min_new_tokens=16)
    assert torch.equal(found["tokens"], expected)
    assert 0 <= read_provenance(stock / to)["metrics"]["difference"] <= 1e-4  # of logits up to 6


@pytest.mark.parametrize("to", STOCK)
def test_a_stock_directory_holds_no_code_and_speaks_of_none(stock, to):
    folder, source = stock / to, stock / f"our-{to}"
    assert not list(folder.glob("*.py"))
    for name in ("README.md", "config.json", "tokenizer_config.json"):
        text = (folder / name).read_text()
        assert "trust_remote_code" not in text and "auto_map" not in text and "custom_code" not in text
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.bos_token_id == json.loads((folder / "config.json").read_text())["bos_token_id"] == 0
    assert tokenizer("the cat")["input_ids"] == AutoTokenizer.from_pretrained(source)("the cat")["input_ids"]


def test_a_stock_export_says_how_far_it_is_from_the_original(place, tmp_path, capsys):
    main(flags({"output_dir": tmp_path / "out", "model": place / "pretrain", "to": "qwen3"}))
    difference = read_provenance(tmp_path / "out")["metrics"]["difference"]
    words = f"(qwen3, tokenizer, model card; logits within {difference:.1e} of the original's)"
    assert words in capsys.readouterr().out


def test_the_card_of_a_stock_model(place, tmp_path):
    main(flags({"output_dir": tmp_path / "out", "model": place / "pretrain", "to": "qwen3", "name": "tiny"}))
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.tags == ["scratch"]
    assert "M parameters. A stock Qwen3ForCausalLM, so this directory holds no code:" in card.text
    assert 'pipeline("text-generation", "YOUR_NAME/tiny")' in card.text


def test_a_stock_model_keeps_its_dtype(place, tmp_path):
    source = write_model(tmp_path / "model", place / "tokenizer")
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(source)
    main(flags({"output_dir": tmp_path / "out", "model": source, "to": "qwen3"}))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_refuses_another_architecture(place, tmp_path):
    said = r"^'to': .*pretrain: this model is not a llama: qk_norm is True .*it is a qwen3"
    with pytest.raises(UserError, match=said):
        main(flags({"output_dir": tmp_path / "out", "model": place / "pretrain", "to": "llama"}))
    with pytest.raises(UserError, match="'to' must be one of scratch, llama, qwen3, gpt2, gguf, web, not 'mistral'"):
        main(flags({"output_dir": tmp_path / "out", "model": place / "pretrain", "to": "mistral"}))
    assert not list(tmp_path.iterdir())


def test_refuses_a_model_that_is_of_a_stock_class_already(place, tmp_path):
    """What `scratch sft` makes of a stock model on the Hub."""
    main(flags({"output_dir": tmp_path / "stock", "model": place / "pretrain", "to": "qwen3"}))
    source = write_model(tmp_path / "sft", place / "tokenizer", "sft")
    Qwen3ForCausalLM.from_pretrained(tmp_path / "stock").save_pretrained(source)
    with pytest.raises(UserError, match="sft is already a qwen3 of transformers; leave 'to' out"):
        main(flags({"output_dir": tmp_path / "out", "model": source, "to": "qwen3"}))
    main(flags({"output_dir": tmp_path / "out", "model": source}))
    assert "trust_remote_code" not in (tmp_path / "out" / "README.md").read_text()


def test_a_directory_with_other_numbers_is_not_kept(place, tmp_path, monkeypatch):
    """Whatever goes wrong between the weights in memory and the files."""

    def damage(model, source, folder, state_dict):
        with torch.no_grad():
            model.model.norm.weight[0] += 0.01
        save_model(model, source, folder, state_dict)

    monkeypatch.setattr(model_folder, "save_model", damage)
    with pytest.raises(UserError, match="its logits differ by up to .* from those of .*pretrain; not kept"):
        main(flags({"output_dir": tmp_path / "out", "model": place / "pretrain", "to": "qwen3"}))
    assert not (tmp_path / "out").exists()


@torch.no_grad()
def train(adapted):
    """Change the weights of an adapter, and leave those of its base."""
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.add_(0.3 * torch.randn_like(parameter))
    return adapted


def write_adapter_with_tokens(folder, base):
    """An adapter as stock programs leave it after adding a token; returns the logits of the trained model."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<|new|>"])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    train(model).save_pretrained(folder, save_embedding_layers=True)
    tokenizer.save_pretrained(folder)
    with torch.no_grad():
        return model.eval()(torch.arange(4, 20)[None]).logits


def test_an_adapter_of_a_model_with_added_tokens(place, tmp_path):
    """The merged model has their rows and the adapter's tokenizer."""
    expected = write_adapter_with_tokens(tmp_path / "adapter", place / "sft")
    options = {"model": place / "sft", "adapter": tmp_path / "adapter"}
    main(flags({"output_dir": tmp_path / "merged", **options}))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    tokenizer = open_tokenizer(tmp_path / "merged", "model")
    assert model.config.vocab_size == len(tokenizer) == VOCAB_SIZE + 1
    with torch.no_grad():
        torch.testing.assert_close(model(torch.arange(4, 20)[None]).logits, expected, atol=1e-4, rtol=1e-4)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / "adapter" / file).unlink()
    with refused("adapter", tmp_path / "adapter", VOCAB_SIZE + 1, VOCAB_SIZE, "tokenizer"):
        main(flags({"output_dir": tmp_path / "again", **options}))
    assert not list(tmp_path.glob("again*"))


def test_an_adapter_of_a_reward_model(place, tmp_path):
    """A checkpoint of `trl reward`, whose base is a language model: the result is a reward model."""
    base = AutoModelForSequenceClassification.from_pretrained(place / "sft", num_labels=1)
    model = train(get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS")))
    model.save_pretrained(tmp_path / "adapter")
    main(flags({"output_dir": tmp_path / "merged", "model": place / "sft", "adapter": tmp_path / "adapter"}))
    merged, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not any(report.values()) and merged.config.num_labels == 1
    with torch.no_grad():
        found, expected = (each.eval()(torch.arange(4, 20)[None]).logits for each in (merged, model))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert "A reward model" in (tmp_path / "merged" / "README.md").read_text()
