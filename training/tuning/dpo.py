"""DPO trainer: TRL's, which learns from pairs of a chosen and a rejected answer, with our checks."""

from trl import DPOTrainer

from training.tuning.preference_checks import PreferenceChecks


class ScratchDPOTrainer(PreferenceChecks, DPOTrainer):
    """TRL's DPOTrainer (Rafailov et al., https://arxiv.org/abs/2305.18290). For errors see `PreferenceChecks`."""

    progress_figures = {"rewards/margins": "margin {:.3f}", "rewards/accuracies": "accuracy {:.0%}"}
