"""Tables with sources: devices, prices, laws, published runs."""

import datetime

import pytest
from messages import refused

from training.planner.facts.devices import read_market
from training.planner.facts.laws import CHINCHILLA, EPOCH, LAWS, recommended
from training.planner.inference import cache_bytes
from training.planner.published import read_published
from training.planner.sizes import architecture_of_size
from training.planner.speed import UTILISATION

RUNS = {run.name: run for run in read_published()}
MARKET = read_market()


@pytest.mark.parametrize("name", RUNS)
def test_a_published_run_is_reproduced_from_its_inputs(name):
    """Within 10 % from sizes, tokens and MFU."""
    run = RUNS[name]
    assert run.predicted_hours(MARKET) == pytest.approx(run.hours, rel=0.10)


def test_only_known_outliers_leave_the_bounds_of_the_utilisation():
    outside = {name for name, run in RUNS.items() if not UTILISATION.low <= run.mfu <= UTILISATION.high}
    assert outside == {"Llama-3 8B"} and RUNS["Llama-3 8B"].outlier


def test_every_row_has_a_source_and_a_date():
    for row in [*MARKET.devices, *MARKET.prices]:
        assert row.source and datetime.date.fromisoformat(row.date)
    assert all(law.source and law.year and law.error for law in LAWS)
    assert all(MARKET.find(price.device) for price in MARKET.prices)


def test_tokens_per_parameter_of_the_two_fits():
    """The printed fit asks for ever more tokens; the corrected one for about twenty."""
    for budget, printed, corrected in ((1e19, 32, 24), (1e21, 50, 22), (5.8e23, 93, 18)):
        for fit, expected in ((CHINCHILLA, printed), (EPOCH, corrected)):
            parameters, tokens = fit.optimum(budget)
            assert tokens / parameters == pytest.approx(expected, rel=0.08)
            assert 6 * parameters * tokens == pytest.approx(budget)


def test_step_law_at_its_example():
    batch, rate = recommended(124e6, 2.5e9)[0].batch_tokens, recommended(124e6, 2.5e9)[0].learning_rate
    assert batch == pytest.approx(135e3, rel=0.1) and rate == pytest.approx(2.3e-3, rel=0.05)


def test_the_cache_by_kind_of_attention():
    model = architecture_of_size(7e9)
    assert cache_bytes(model, 1) == 2 * model.num_hidden_layers * model.key_value_width * 2


def test_devices_of_the_users_own(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        "devices: [{name: Mine, teraflops: 9, memory_gb: 8, bandwidth_tb: 1, source: me, date: 2026-01-31}]\n"
        "prices: [{device: H100 SXM, dollars: 1.5, source: my contract, date: 2026-02-01}]\n"
    )
    market = read_market(file)
    assert market.find("mine").teraflops == 9
    assert [price.dollars for price in market.prices_of(market.find("H100"))] == [1.5]


@pytest.mark.parametrize(
    "text, key, facts",
    [
        ("prices: [{device: T4, dollars: 1, source: me}]", "date", ["T4", "2026-01-31"]),
        ("prices: [{device: T4, dollars: 1, source: me, date: soon}]", "date", ["T4"]),
        ("devices: [{name: X, teraflops: 1}]", "date", ["X"]),
        ("devices: [{name: X, date: 2026-01-31, source: me, teraflops: -1, memory_gb: 1, bandwidth_tb: 1}]",
         "teraflops", ["-1"]),
        ("devices: [{name: X, date: 2026-01-31, speed: 4}]", "speed", []),
        ("devices: [X]", None, ["device", "X"]),
        ("device: []", "devices", ["prices"]),
    ],
    ids=["no-date", "date", "device-date", "negative", "key", "row", "table"],
)
def test_a_table_of_the_users_that_is_wrong(text, key, facts, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with refused(key, *facts):
        read_market(file)
