"""Requests in words: what they mean, what they leave open, and what is rejected in one line."""

import pytest
from messages import refused

from training.planner.facts.devices import read_market
from training.planner.layout import Shape
from training.planner.requests.choice import Choices, choose
from training.planner.requests.request import Request, read_request
from training.planner.units import DAY, HOUR

MARKET = read_market()
H100 = MARKET.find("H100")
CHOICES = Choices(shape=Shape(sequence_length=2048, optimizer="adamw"))


@pytest.mark.parametrize(
    "text, request_",
    [
        ("1B", Request(parameters=1e9)),
        ("124m", Request(parameters=124e6)),
        ("7B on 8 x H100", Request(parameters=7e9, devices=8, device=H100)),
        ("7B on 8×h100 sxm", Request(parameters=7e9, devices=8, device=H100)),
        ("24 GB, 2 days, 50 dollars", Request(memory_gb=24, seconds=2 * DAY, dollars=50)),
        ("4 x 24GB, 36 h, $50", Request(devices=4, memory_gb=24, seconds=36 * HOUR, dollars=50)),
        ("1.1B, 300B tokens", Request(parameters=1.1e9, tokens=300e9)),
        ("10M parameters, 5e9 tokens, 4090", Request(parameters=10e6, tokens=5e9, device=MARKET.find("RTX 4090"))),
    ],
)
def test_what_a_request_means(text, request_):
    assert read_request(text, MARKET) == request_


@pytest.mark.parametrize(
    "text, key, facts",
    [
        ("", "request", ["1B"]),
        ("7", "request", ["7", "unit"]),
        ("24 parsecs", "request", ["parsecs", "hours"]),
        ("1B, 2B", "request", ["parameters"]),
        ("0 days", "request", ["0 days"]),
        ("1.2.3 days", "request", ["1.2.3"]),
        ("0 x H100", "request", ["0"]),
        ("8 x H1000", "device", ["H100 SXM", "--devices", "teraflops"]),
        ("a big one", "device", ["a big one"]),
        ("9" * 40 + "B", "request", ["1e18"]),
    ],
    ids=["empty", "no-unit", "unit", "twice", "zero", "number", "no-device", "accelerator", "words", "huge"],
)
def test_a_request_that_is_not_understood(text, key, facts):
    with refused(key, *facts):
        read_request(text, MARKET)


@pytest.mark.parametrize(
    "text, facts",
    [
        ("7B, 300B tokens, 8 x H100, 2 days", ["2.00 days", "possible", "tokens", "x H100 SXM"]),
        ("7B, 300B tokens, 8 x H100, 200 dollars", ["$200", "possible", "tokens", "parameters"]),
    ],
    ids=["time", "money"],
)
def test_a_contradiction_says_what_would_be_possible(text, facts):
    with refused("request", *facts):
        choose(read_request(text, MARKET), CHOICES, MARKET)


def test_a_model_that_fits_nowhere():
    with refused("devices", "GiB"):
        choose(read_request("405B on 8 x 4090", MARKET), Choices(shape=Shape(sequence_length=2**17)), MARKET)


def test_memory_that_no_device_has():
    with refused("request", "23 GB", "RTX 4090"):
        choose(read_request("23 GB", MARKET), CHOICES, MARKET)


def test_a_size_alone_gets_tokens_batch_and_a_device():
    plan = choose(read_request("1B", MARKET), CHOICES, MARKET)
    assert plan.fits and plan.layout.devices == 1
    assert plan.shape.tokens == pytest.approx(20 * plan.architecture.num_parameters, rel=0.01)


def test_a_large_model_is_sharded_over_whole_machines():
    plan = choose(read_request("70B", MARKET), CHOICES, MARKET)
    assert plan.fits and plan.layout.devices % 8 == 0 and plan.layout.sharding == "fsdp2"


def test_the_best_model_uses_the_budget_and_fits():
    plan = choose(read_request("24 GB, 2 days, 50 dollars", MARKET), CHOICES, MARKET)
    assert plan.fits and plan.layout.device.memory_gb == 24
    assert plan.run_seconds.expected == pytest.approx(2 * DAY, rel=0.05)
    assert plan.dollars.expected < 50
    assert 10 < plan.shape.tokens / plan.architecture.num_parameters < 60


def test_limits_bound_the_tokens_of_a_given_size():
    plan = choose(read_request("1B on 8 x H100, 10 hours", MARKET), CHOICES, MARKET)
    assert plan.run_seconds.expected == pytest.approx(10 * HOUR, rel=0.05)
