"""A language model written from scratch, registered with transformers' Auto classes."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from modeling_scratch.configuration_scratch import PRESETS, ScratchConfig
from modeling_scratch.modeling_scratch import (
    ScratchForCausalLM,
    ScratchForQuestionAnswering,
    ScratchForSequenceClassification,
    ScratchForTokenClassification,
    ScratchModel,
    ScratchPreTrainedModel,
)

# Installed classes take precedence over a checkpoint's copy of them, so trust_remote_code is not needed. Every save
# copies the code beside the weights, so that the directory opens where this package is not installed.
AutoConfig.register("scratch", ScratchConfig)
ScratchConfig.register_for_auto_class()
for _auto_class, _model_class in {
    AutoModel: ScratchModel,
    AutoModelForCausalLM: ScratchForCausalLM,
    AutoModelForQuestionAnswering: ScratchForQuestionAnswering,
    AutoModelForSequenceClassification: ScratchForSequenceClassification,
    AutoModelForTokenClassification: ScratchForTokenClassification,
}.items():
    _auto_class.register(ScratchConfig, _model_class)
    _model_class.register_for_auto_class(_auto_class)

__all__ = [
    "PRESETS",
    "ScratchConfig",
    "ScratchForCausalLM",
    "ScratchForQuestionAnswering",
    "ScratchForSequenceClassification",
    "ScratchForTokenClassification",
    "ScratchModel",
    "ScratchPreTrainedModel",
]
