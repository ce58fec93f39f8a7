"""RLOO trainer: TRL's, with rewards by name, completions saved, and a plot of reward against KL."""

from trl import RLOOTrainer

from training.tuning.online_rl import OnlineTrainer


class ScratchRLOOTrainer(OnlineTrainer, RLOOTrainer):
    """TRL's RLOOTrainer (Ahmadian et al., https://arxiv.org/abs/2402.14740). For errors see `OnlineTrainer`."""
