"""Threads follow the load: how many, when they change, and that others' looping program makes them fewer."""

import os
import subprocess
import sys
import time

import pytest
import torch

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.machine import resources, threads
from training.machine.resources import available_cores, processor_flags
from training.machine.threads import (
    CALM_LOOKS,
    Threads,
    follow_load,
    follow_load_in,
    numbers_of_threads,
    same_bits,
    use_reproducible_products,
)


class NoLoad:
    elapsed = 1.0

    def others(self) -> float:
        return 0.0


def chosen(cores: int, looks: list[float]) -> list[int]:
    following = Threads(cores, NoLoad())
    return [following.choose(others) for others in looks]


def test_few_numbers():
    assert [numbers_of_threads(cores) for cores in (1, 2, 3, 4)] == [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]]
    assert numbers_of_threads(16) == [1, 4, 8, 15, 16]


def test_a_busy_program_is_seen_at_once_and_its_end_after_a_while():
    assert chosen(2, [0.1, 0.9, 0.9, *[0.0] * CALM_LOOKS, 0.0]) == [2, 1, 1, *[1] * (CALM_LOOKS - 1), 2, 2]


def test_what_uses_little_changes_nothing():
    assert chosen(2, [0.3] * 20) == [2] * 20


def test_between_the_bounds_nothing_changes():
    assert chosen(2, [0.9, *[0.3] * 20]) == [1] * 21


def test_a_load_that_comes_and_goes_does_not_make_it_oscillate():
    assert chosen(2, [0.9, 0.0, 0.0, 0.9] * 10) == [1] * 40


def test_many_cores_leave_others_what_they_use():
    assert chosen(16, [0.0, 1.0, 3.0, 9.0, 40.0]) == [16, 15, 8, 4, 1]
    assert chosen(16, [40.0, *[1.0] * CALM_LOOKS])[-1] == 15


def test_one_core_has_one_thread():
    assert chosen(1, [0.0, 3.0]) == [1, 1]


def test_the_environment_fixes_the_number(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(torch, "set_num_threads", lambda _: pytest.fail("changed"))
    assert follow_load() is None


def test_same_bits():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert same_bits(lambda: [1.0]) is True
        assert same_bits(lambda: [torch.get_num_threads()]) is False
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert same_bits(lambda: pytest.fail("nothing to compare")) is None
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def fresh(monkeypatch):
    """`follow_load` as at the start of a process whose user fixed nothing."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(threads, "_threads", None)
    yield monkeypatch
    torch.set_num_threads(before)


def test_processes_of_a_launcher_share_the_cores(fresh):
    fresh.setattr(resources, "available_cores", lambda: 4)
    fresh.setattr(threads, "Load", NoLoad)
    fresh.setenv("LOCAL_WORLD_SIZE", "2")
    follow_load()
    assert torch.get_num_threads() == 2


def test_a_change_is_told(fresh):
    fresh.setattr(resources, "available_cores", lambda: 2)
    fresh.setattr(threads, "Load", NoLoad)
    fresh.setattr(threads, "FIRST_LOOK", 0)
    assert follow_load() == "2 threads on 2 cores, none needed by other programs"
    fresh.setattr(NoLoad, "others", lambda _: 1.0)
    assert follow_load() == "1 thread on 2 cores, other programs need cores"
    assert follow_load() is None
    fresh.setattr(NoLoad, "others", lambda _: 0.0)
    assert [follow_load() for _ in range(CALM_LOOKS)][-1].startswith("2 threads")


@pytest.mark.skipif(not sys.platform.startswith("linux") or available_cores() < 2, reason="/proc, two cores")
@pytest.mark.parametrize("new_session", [False, True])
def test_one_thread_is_left_beside_busy_programs(fresh, new_session):
    """As many loops as cores, which keep more than 0.4 of a core each whatever else this machine does."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=new_session)
        for _ in range(available_cores())
    ]
    # Children of this process would be ours.
    fresh.setattr("training.machine.resources.tree_seconds", lambda _: time.process_time())
    try:
        deadline = time.monotonic() + 30
        follow_load()
        while torch.get_num_threads() > 1 and time.monotonic() < deadline:
            time.sleep(0.1)
            follow_load()
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert torch.get_num_threads() == 1


@pytest.mark.skipif("avx2" not in processor_flags(), reason="MKL has the mode for these processors")
def test_products_are_reproducible_before_torch_is_there(monkeypatch):
    monkeypatch.delenv("MKL_CBWR", raising=False)
    use_reproducible_products()
    assert os.environ["MKL_CBWR"] in ("AVX512,STRICT", "AVX2,STRICT")
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")  # the user's own
    use_reproducible_products()
    assert os.environ["MKL_CBWR"] == "COMPATIBLE"


def test_a_model_that_scores_looks_before_every_forward(monkeypatch):
    """While gradients are computed, its number of threads is the training loop's business."""
    looks = []
    monkeypatch.setattr(threads, "follow_load", lambda: looks.append(1))
    model = ScratchForCausalLM(ScratchConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    follow_load_in(model)
    tokens = torch.zeros(1, 2, dtype=torch.long)
    model(tokens)
    assert not looks
    with torch.inference_mode():
        model(tokens)
    assert len(looks) == 1
    model.generate(tokens, max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=None)
    assert len(looks) == 4
