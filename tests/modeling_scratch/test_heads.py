"""The heads beside the language model's: Llama's with Llama's weights, opened from a language model's checkpoint."""

import pytest
import torch
import transformers
from tiny_model import SIZES, build, stir, tokens
from torch import nn
from transformers import AutoModelForSequenceClassification, LlamaConfig

import modeling_scratch
from modeling_scratch import ScratchConfig, ScratchForSequenceClassification

HEADS = {
    "SequenceClassification": {"labels": torch.tensor([0, 2])},
    "TokenClassification": {"labels": torch.where(tokens(2, 9) % 4 == 0, -100, tokens(2, 9, seed=2) % 3)},
    "QuestionAnswering": {"start_positions": torch.tensor([2, 0]), "end_positions": torch.tensor([5, 8])},
}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_is_llamas(head):
    config = ScratchConfig.from_preset("llama", **SIZES)
    config.num_labels = 3
    ours = stir(getattr(modeling_scratch, f"ScratchFor{head}")(config)).eval()
    llama_config = LlamaConfig(num_labels=3, rms_norm_eps=config.norm_eps, **SIZES)
    llama = getattr(transformers, f"LlamaFor{head}")(llama_config).eval()
    weights = ours.state_dict()
    llama.load_state_dict({name.replace("model.", f"{llama.base_model_prefix}."): weights[name] for name in weights})
    input_ids = tokens(2, 9, seed=1)
    input_ids[0, 6:] = 0
    batch = {"input_ids": input_ids, "attention_mask": (input_ids != 0).long(), **HEADS[head]}
    found, expected = ours(**batch), llama(**batch)
    assert found.keys() == expected.keys()
    for name in found.keys() - {"past_key_values"}:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_opens_a_language_models_checkpoint(head, tmp_path):
    language_model = build("scratch")
    language_model.save_pretrained(tmp_path)
    auto_class = getattr(transformers, f"AutoModelFor{head}")
    model, report = auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model) is getattr(modeling_scratch, f"ScratchFor{head}")
    assert {name.partition(".")[0] for name in report["missing_keys"]} <= {"score", "qa_outputs"}
    for name, parameter in model.model.named_parameters():
        assert torch.equal(parameter, language_model.model.get_parameter(name)), name


def test_a_classifier_scores_the_last_token(tmp_path):
    build("scratch").save_pretrained(tmp_path)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    assert type(classifier) is ScratchForSequenceClassification and not classifier.accepts_loss_kwargs
    prompt = tokens(1, 5)
    padded = torch.cat([nn.functional.pad(prompt, (0, 4)), tokens(1, 9)])
    with torch.no_grad():
        expected = classifier.score(classifier.model(prompt).last_hidden_state[:, -1])
        output = classifier(padded, attention_mask=(padded != 0).long(), labels=torch.tensor([0, 2]))
    torch.testing.assert_close(output.logits[:1], expected, atol=2e-5, rtol=1e-4)
    assert output.logits.shape == (2, 3) and torch.isfinite(output.loss)
