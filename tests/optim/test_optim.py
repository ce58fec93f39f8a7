"""The optimizer, its groups and its schedules."""

import math

import pytest
import torch
from torch import nn

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.optim import muon
from training.optim.config import OptimizerConfig
from training.optim.muon import MuonAdamW, polar_factor
from training.optim.optimizer import build_optimizer
from training.optim.schedule import learning_rate_factor


def exact_polar_factor(matrix: torch.Tensor) -> torch.Tensor:
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vh


@pytest.mark.parametrize("shape", [(96, 32), (32, 96), (64, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_polar_factor_is_close_to_the_exact_one(shape, dtype):
    torch.manual_seed(0)
    # A spectrum between 0.1 and 1, as gradients have where they matter; a random square matrix has singular value 0.
    u, v = (exact_polar_factor(torch.randn(size, min(shape))) for size in shape)
    matrix = u @ torch.diag(torch.linspace(0.1, 1, min(shape))) @ v.T
    approximate = polar_factor(matrix[None], dtype)[0].float()
    assert approximate.shape == shape
    singular_values = torch.linalg.svdvals(approximate)
    assert singular_values.min() > 0.7 and singular_values.max() < 1.25
    cosine = nn.functional.cosine_similarity(approximate.flatten(), exact_polar_factor(matrix).flatten(), dim=0)
    assert cosine > 0.98


def test_polar_factor_treats_each_matrix_of_a_batch_alone():
    torch.manual_seed(0)
    matrices = torch.randn(3, 16, 24) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    together = polar_factor(matrices, torch.float32)
    for matrix, alone in zip(matrices, together, strict=True):
        torch.testing.assert_close(polar_factor(matrix[None], torch.float32)[0], alone, atol=1e-5, rtol=1e-5)


def test_a_zero_gradient_moves_nothing_and_stays_finite():
    matrix = nn.Parameter(torch.ones(4, 4))
    matrix.grad = torch.zeros(4, 4)
    MuonAdamW([{"params": [matrix], "use_muon": True}], lr=1.0).step()
    assert torch.equal(matrix.detach(), torch.ones(4, 4))


def test_muon_step_has_the_size_that_the_learning_rate_says():
    torch.manual_seed(0)
    for rows, columns in [(64, 16), (16, 64)]:
        matrix = nn.Parameter(torch.zeros(rows, columns))
        matrix.grad = torch.randn(rows, columns) * 1e-4
        MuonAdamW([{"params": [matrix], "use_muon": True}], lr=0.02).step()
        spectral = torch.linalg.matrix_norm(matrix.detach(), 2).item()
        assert spectral == pytest.approx(0.02 * max(1, rows / columns) ** 0.5, rel=0.25)


def test_muon_in_batches_equals_all_matrices_at_once(monkeypatch):
    torch.manual_seed(0)
    gradients = torch.randn(5, 6, 4)

    def step() -> torch.Tensor:
        matrices = [nn.Parameter(torch.ones(6, 4)) for _ in gradients]
        for matrix, gradient in zip(matrices, gradients, strict=True):
            matrix.grad = gradient.clone()
        MuonAdamW([{"params": matrices, "use_muon": True}], polar_dtype=torch.float32).step()
        return torch.stack(matrices).detach()

    together = step()
    for limit in (1, 2 * 6 * 4):  # elements: one matrix at a time, and two
        monkeypatch.setattr(muon, "POLAR_BATCH", limit)
        torch.testing.assert_close(step(), together, atol=1e-6, rtol=0)


def test_adamw_groups_equal_torch_adamw():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    settings = {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-8}
    optimizers = [
        MuonAdamW([{"params": list(ours.parameters()), "use_muon": False}], **settings),
        torch.optim.AdamW(theirs.parameters(), **settings),
    ]
    inputs = torch.randn(6, 5)
    for _ in range(20):
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            layer(inputs).square().mean().backward()
            optimizer.step()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-6, rtol=1e-6)


def test_state_dict_round_trip_goes_on_exactly():
    torch.manual_seed(0)
    gradients = [torch.randn(8, 8) for _ in range(6)]

    def train(optimizer, parameter, steps):
        for gradient in steps:
            parameter.grad = gradient.clone()
            optimizer.step()

    straight = nn.Parameter(torch.ones(8, 8))
    train(MuonAdamW([{"params": [straight], "use_muon": True}]), straight, gradients)
    stopped = nn.Parameter(torch.ones(8, 8))
    first = MuonAdamW([{"params": [stopped], "use_muon": True}])
    train(first, stopped, gradients[:3])
    second = MuonAdamW([{"params": [stopped], "use_muon": True}])
    second.load_state_dict(first.state_dict())
    train(second, stopped, gradients[3:])
    assert torch.equal(straight, stopped)


def test_muon_refuses_vectors():
    with pytest.raises(ValueError, match="matrices only"):
        MuonAdamW([{"params": [nn.Parameter(torch.ones(3))], "use_muon": True}])


@pytest.mark.parametrize("dials", [{"preset": "gpt2"}, {"preset": "scratch", "embedding_shortcut": True}])
def test_every_parameter_is_in_one_group_with_its_rule(dials):
    config = ScratchConfig.from_preset(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, **dials
    )
    model = ScratchForCausalLM(config)
    optimizer = build_optimizer(model, OptimizerConfig())
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(grouped) == len(set(map(id, grouped))) == len(list(model.parameters()))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["use_muon"] == (".layers." in names[id(parameter)] and parameter.ndim == 2)
            if parameter.ndim < 2:
                assert group["weight_decay"] == 0


def test_wsd_rises_stays_and_falls():
    factors = [learning_rate_factor(step, 100, "wsd", 10, 0.4, 0.1) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0
    assert all(factor == 1.0 for factor in factors[10:60])
    assert all(later < earlier for earlier, later in zip(factors[60:], factors[61:], strict=False))
    assert factors[80] == pytest.approx(0.55) and factors[100] == pytest.approx(0.1)


def test_cosine_is_half_way_down_in_the_middle():
    assert learning_rate_factor(55, 100, "cosine", 10, 0.4, 0.0) == pytest.approx(0.5)
    assert learning_rate_factor(100, 100, "cosine", 10, 0.4, 0.2) == pytest.approx(0.2)
    assert math.isclose(learning_rate_factor(10, 100, "cosine", 10, 0.4, 0.2), 1.0)
