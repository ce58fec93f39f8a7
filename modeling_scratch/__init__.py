"""A language model written from scratch, registered with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from modeling_scratch.configuration_scratch import PRESETS, ScratchConfig
from modeling_scratch.modeling_scratch import (
    ScratchForCausalLM,
    ScratchForSequenceClassification,
    ScratchModel,
    ScratchPreTrainedModel,
)

# Installed classes take precedence over a checkpoint's copy of them, so trust_remote_code is not needed.
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
