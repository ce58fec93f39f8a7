"""KTO trainer: TRL's, which learns from single answers labelled good or bad (unpaired preference), with our checks."""

from trl import KTOTrainer

from training.tuning.accumulation import ExactMean
from training.tuning.preference_checks import PreferenceChecks


class ScratchKTOTrainer(PreferenceChecks, ExactMean, KTOTrainer):
    """TRL's KTOTrainer (Ethayarajh et al., https://arxiv.org/abs/2402.01306). For errors see `PreferenceChecks`."""
