"""Scaling laws: compute-optimal size and tokens by each of several papers, with their dates and known errors.

C is the training budget in floating-point operations, N the number of parameters, D the number of tokens; C = 6 N D
except where a law says otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass

OWN_TOKENS_PER_PARAMETER = 12  # TOKENS_PER_PARAMETER of training.pretraining.scaling, which imports torch


@dataclass(frozen=True)
class LossFit:
    """The loss L = E + A / N^alpha + B / D^beta in nats per token of the text that it was fitted on."""

    irreducible: float
    a: float
    alpha: float
    b: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats per token."""
        return self.irreducible + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def optimum(self, budget: float) -> tuple[float, float]:
        """Parameters and tokens with the lowest loss for a budget."""
        ratio = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = ratio * (budget / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, budget / 6 / parameters


CHINCHILLA = LossFit(1.69, 406.4, 0.34, 410.7, 0.28)
EPOCH = LossFit(1.8172, 482.01, 0.3478, 2085.43, 0.3658)


def _fixed_ratio(tokens_per_parameter: float) -> Callable[[float], tuple[float, float]]:
    def optimum(budget: float) -> tuple[float, float]:
        parameters = (budget / 6 / tokens_per_parameter) ** 0.5
        return parameters, tokens_per_parameter * parameters

    return optimum


def _deepseek(budget: float) -> tuple[float, float]:
    operations = 0.1715 * budget**0.5243  # per token of the forward and backward pass, embeddings left out
    return operations / 6, budget / operations


def _llama3(budget: float) -> tuple[float, float]:
    tokens = 16.55e12 * (budget / 3.8e25) ** 0.53  # through the published point, with the published exponent
    return budget / 6 / tokens, tokens


@dataclass(frozen=True)
class Law:
    """A rule for the size and tokens of a budget.

    Attributes:
        name, year, source: of the publication.
        counts: which parameters its N has.
        error: what is known to be wrong or uncertain about it.
        optimum: parameters and tokens of a budget in floating-point operations.
        checked: False if its coefficients were not read in the source itself.
    """

    name: str
    year: int
    source: str
    counts: str
    error: str
    optimum: Callable[[float], tuple[float, float]]
    checked: bool = True


LAWS = (
    Law(
        "Epoch's correction",
        2024,
        "https://arxiv.org/abs/2404.10102",
        "all",
        "refits 245 points read from a figure of Chinchilla's; massive web text, one tokenizer",
        EPOCH.optimum,
        checked=False,
    ),
    Law(
        "Chinchilla, 20 tokens a parameter",
        2022,
        "https://arxiv.org/abs/2203.15556",
        "all",
        "approaches 1 and 2; their exponents for N are 0.50 and 0.49, so the ratio is not quite constant",
        _fixed_ratio(20),
    ),
    Law(
        "Chinchilla, printed fit",
        2022,
        "https://arxiv.org/abs/2203.15556",
        "all",
        "approach 3: the fit stopped early and its digits are rounded; sizes come out 2 to 5 times too small",
        CHINCHILLA.optimum,
    ),
    Law(
        "DeepSeek",
        2024,
        "https://arxiv.org/abs/2401.02954",
        "without embeddings",
        "better text moves the optimum to larger models; N is operations per token / 6",
        _deepseek,
        checked=False,
    ),
    Law(
        "Llama 3",
        2024,
        "https://arxiv.org/abs/2407.21783",
        "all",
        "the printed pair (0.29, 0.53) misses the paper's own point, so the law is drawn through that point",
        _llama3,
        checked=False,
    ),
    Law(
        "nanochat",
        2026,
        "https://github.com/karpathy/nanochat",
        "without embeddings",
        "one set-up (Muon), models up to 1B parameters",
        _fixed_ratio(10.5),
    ),
    Law(
        "scratch",
        2026,
        "training/pretraining/scaling.py",
        "in matrix products",
        "nanochat's earlier ratio; tried here on models of a few million parameters only",
        _fixed_ratio(OWN_TOKENS_PER_PARAMETER),
    ),
)


@dataclass(frozen=True)
class Hyperparameters:
    """Batch size and peak learning rate that a paper recommends for AdamW.

    Attributes:
        batch_tokens: tokens per optimizer step.
        learning_rate: peak.
    """

    name: str
    source: str
    batch_tokens: float
    learning_rate: float


def recommended(parameters: float, tokens: float) -> list[Hyperparameters]:
    """Batch and rate by Step Law and by DeepSeek.

    Args:
        parameters: without embeddings.
        tokens: of the run.
    """
    budget = 6 * parameters * tokens
    step_law = 0.58 * tokens**0.571, 1.79 * parameters**-0.713 * tokens**0.307
    deepseek = 0.2920 * budget**0.3271, 0.3118 * budget**-0.1250
    return [
        Hyperparameters("Step Law (2025)", "https://arxiv.org/abs/2503.04715", *step_law),
        Hyperparameters("DeepSeek (2024)", "https://arxiv.org/abs/2401.02954", *deepseek),
    ]
