"""A language model written from scratch that transformers takes for its own."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from modeling_scratch.configuration_scratch import PRESETS, ScratchConfig
from modeling_scratch.modeling_scratch import (
    ScratchForCausalLM,
    ScratchForSequenceClassification,
    ScratchModel,
    ScratchPreTrainedModel,
)

# Installed classes win over a checkpoint's copy of them, without a question about trust.
AutoConfig.register("scratch", ScratchConfig)
AutoModel.register(ScratchConfig, ScratchModel)
AutoModelForCausalLM.register(ScratchConfig, ScratchForCausalLM)
AutoModelForSequenceClassification.register(ScratchConfig, ScratchForSequenceClassification)

# Every save copies the code beside the weights, so that the directory opens where this package is not installed.
ScratchConfig.register_for_auto_class()
ScratchModel.register_for_auto_class("AutoModel")
ScratchForCausalLM.register_for_auto_class("AutoModelForCausalLM")
ScratchForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

__all__ = [
    "PRESETS",
    "ScratchConfig",
    "ScratchForCausalLM",
    "ScratchForSequenceClassification",
    "ScratchModel",
    "ScratchPreTrainedModel",
]
