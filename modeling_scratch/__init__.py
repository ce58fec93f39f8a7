"""A language model written from scratch, registered with transformers' Auto classes."""

import transformers

from modeling_scratch.configuration_scratch import PRESETS, ScratchConfig
from modeling_scratch.modeling_scratch import (
    AUTO_CLASSES,
    ScratchForCausalLM,
    ScratchForQuestionAnswering,
    ScratchForSequenceClassification,
    ScratchForTokenClassification,
    ScratchModel,
    ScratchPreTrainedModel,
)

# Installed classes take precedence over a checkpoint's copy of them, so trust_remote_code is not needed. Every save
# copies the code beside the weights, so that the directory opens where this package is not installed.
transformers.AutoConfig.register("scratch", ScratchConfig)
ScratchConfig.register_for_auto_class()
for _auto_class, _model_class in AUTO_CLASSES.items():
    getattr(transformers, _auto_class).register(ScratchConfig, _model_class)
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
