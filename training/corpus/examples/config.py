"""Recipe keys of the examples mined from functions: instructions and preferences."""

from dataclasses import dataclass

from training.stages.recipe import option


@dataclass
class PairConfig:
    """Numbers of records of one kind of pairs."""

    train: int = option(
        0, "maximum records from the training packages; 0 for text without Python functions", at_least=0
    )
    validation: int = option(0, "maximum records from the held-out packages", at_least=0)
