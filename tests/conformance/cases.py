"""transformers' own test mixins over its Llama and over our classes: one class of tests for each network.

`run.py` runs this file, with the unpacked tests on the path as the package `upstream`.
"""

import unittest

import transformers
from shapes import LLAMA, OURS, Shape
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
)
from upstream import test_fsdp_mixin, test_modeling_common, test_tensor_parallel_mixin
from upstream.generation.test_utils import GenerationTesterMixin
from upstream.test_configuration_common import ConfigTester
from upstream.test_training_mixin import TrainingTesterMixin

from modeling_scratch import (
    ScratchConfig,
    ScratchForCausalLM,
    ScratchForQuestionAnswering,
    ScratchForSequenceClassification,
    ScratchForTokenClassification,
    ScratchModel,
)

# transformers runs its tests of parallel training for a list of its own models; None is for all.
test_tensor_parallel_mixin.TP_DISTRIBUTED_TEST_MODEL_TYPES = None
test_fsdp_mixin.FSDP_DISTRIBUTED_TEST_MODEL_TYPES = None


class ModelTester:
    """The tiny network under test and a batch for it, under the names by which the mixins ask for them."""

    is_training = True
    batch_size, seq_length = 3, 7
    vocab_size, hidden_size, num_hidden_layers, num_attention_heads = 99, 32, 2, 4

    def __init__(self, make_config, causal_lm_class):
        self.make_config = make_config
        self.causal_lm_class = causal_lm_class

    def get_config(self):
        return self.make_config(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=32,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            max_position_embeddings=512,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )

    def prepare_config_and_inputs_for_common(self):
        size = [self.batch_size, self.seq_length]
        input_ids = test_modeling_common.ids_tensor(size, self.vocab_size - 3) + 3  # no special tokens
        return self.get_config(), {"input_ids": input_ids, "attention_mask": (input_ids > 0).long().tril()}


class LlamaCases(
    test_modeling_common.ModelTesterMixin,
    GenerationTesterMixin,
    TrainingTesterMixin,
    test_tensor_parallel_mixin.TensorParallelTesterMixin,
):
    shape: Shape
    config_class = LlamaConfig
    all_model_classes = (LlamaModel, LlamaForCausalLM, LlamaForSequenceClassification)
    other_heads = (LlamaForTokenClassification, LlamaForQuestionAnswering)
    model_tester = None
    # Asked of every model since 2023, which is recognised by a line in the source that ours has not.
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        transformers.set_seed(0)
        test_modeling_common.global_rng.seed(0)
        self.model_tester = ModelTester(self.make_config, self.all_model_classes[1])

    def make_config(self, **sizes):
        heads, tied = self.shape.key_value_heads, self.shape.tied
        return self.config_class(**sizes, num_key_value_heads=heads, tie_word_embeddings=tied)

    def test_config(self):
        ConfigTester(self, config_class=self.config_class, hidden_size=64).run_common_tests()


class OurCases(LlamaCases):
    config_class = ScratchConfig
    all_model_classes = (ScratchModel, ScratchForCausalLM, ScratchForSequenceClassification)
    other_heads = (ScratchForTokenClassification, ScratchForQuestionAnswering)

    def make_config(self, **sizes):
        heads, tied = self.shape.key_value_heads, self.shape.tied
        sizes |= {"num_key_value_heads": heads, "tie_word_embeddings": tied}
        return self.config_class.from_preset(self.shape.preset, **sizes)


for _side, _cases, _shapes in (("llama", LlamaCases, LLAMA), ("ours", OurCases, OURS)):
    for _name, _shape in _shapes.items():
        _bases, _classes = (_cases,), _cases.all_model_classes
        if _shape.whole:
            _bases, _classes = (_cases, test_fsdp_mixin.FSDPTesterMixin), (*_classes, *_cases.other_heads)
        _members = {"shape": _shape, "all_model_classes": _classes}
        globals()[f"{_side}_{_name}"] = type(f"{_side}_{_name}", (*_bases, unittest.TestCase), _members)
