"""The samples of an epoch, under every pile of wrappers that the Trainer and Accelerate put over a sampler."""

import pytest
import torch
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, RandomSampler
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from training.tuning.pipeline.resume import SeedSamplerByEpoch

NUMBERS = list(range(24))


def loader(kind: str, processes: int):
    by_length = LengthGroupedSampler(2, lengths=[1 + number % 5 for number in NUMBERS])
    sampler = by_length if kind == "by length" else RandomSampler(NUMBERS)
    return prepare_data_loader(
        DataLoader(NUMBERS, batch_size=2, sampler=sampler),
        num_processes=processes,
        process_index=processes - 1,
        put_on_device=False,
        use_seedable_sampler=True,
        data_seed=7,
    )


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kind", ["at random", "by length"])
def test_a_resumed_epoch_has_the_order_it_would_have_had(kind, processes, tmp_path):
    """Epochs one after another, random numbers drawn meanwhile; then each from its middle, as a process begins anew."""
    arguments, epochs = TrainingArguments(str(tmp_path), seed=7, use_cpu=True), []
    data = loader(kind, processes)
    for epoch in range(3):
        data.set_epoch(epoch)
        SeedSamplerByEpoch().on_epoch_begin(arguments, TrainerState(epoch=float(epoch)), TrainerControl(), data)
        torch.rand(epoch + 1)
        epochs.append([batch.tolist() for batch in data])
    assert epochs[0] != epochs[1] != epochs[2]
    for epoch, skipped in ((0, 2), (1, 1), (2, 3)):
        data = loader(kind, processes)
        SeedSamplerByEpoch().on_epoch_begin(arguments, TrainerState(epoch=epoch + skipped / 12), TrainerControl(), data)
        rest = skip_first_batches(data, skipped)
        rest.set_epoch(epoch)  # as the Trainer does, which does not always reach the sampler
        assert [batch.tolist() for batch in rest] == epochs[epoch][skipped:]
