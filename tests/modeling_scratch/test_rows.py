"""Documents of unequal length in one tensor, padded or packed: each gets the numbers that it gets alone."""

import contextlib
import copy

import pytest
import torch
from tiny_model import ARCHITECTURES, build, logits, tokens
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return build(**ARCHITECTURES[request.param])


@contextlib.contextmanager
def attention_of(model, implementation):
    model.set_attn_implementation(implementation)
    try:
        # flex_attention's own kernel takes half a minute of C++ compiler; its definition in torch takes the same masks.
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        model.set_attn_implementation("sdpa")


# --- Padded ---


def test_left_padding_changes_nothing(model):
    prompts = [tokens(1, length, seed=length) for length in (3, 11)]
    padded = torch.cat([nn.functional.pad(prompt, (11 - prompt.shape[1], 0)) for prompt in prompts])
    mask = (padded != 0).long()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    found = [logits(model, padded, attention_mask=mask, position_ids=positions)]
    if model.config.position_type in ("rope", "none"):  # only distances count
        found.append(logits(model, padded, attention_mask=mask))
    for row, prompt in enumerate(prompts):
        expected = logits(model, prompt)[0]
        for rows in found:
            torch.testing.assert_close(rows[row, -prompt.shape[1] :], expected, **TOLERANCE)
    together = model.generate(padded, attention_mask=mask, max_new_tokens=8, do_sample=False)
    for row, prompt in enumerate(prompts):
        alone = model.generate(prompt, max_new_tokens=8, do_sample=False)
        assert torch.equal(together[row, -8:], alone[0, -8:])


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
def test_right_padding_changes_nothing(model, attention):
    prompts = [tokens(1, length, seed=length) for length in (3, 11)]
    padded = torch.cat([nn.functional.pad(prompt, (0, 11 - prompt.shape[1])) for prompt in prompts])
    mask = (padded != 0).long()
    separate = [logits(model, prompt)[0] for prompt in prompts]
    with attention_of(model, attention), torch.no_grad():
        for padding in (mask, None):  # what follows a document never matters to it: the mask is a courtesy
            found = logits(model, padded, attention_mask=padding)
            for row, expected in enumerate(separate):
                torch.testing.assert_close(found[row, : len(expected)], expected, **TOLERANCE)
        losses = [model(prompt, labels=prompt, num_items_in_batch=12).loss for prompt in prompts]
        loss = model(padded, attention_mask=mask, labels=padded.masked_fill(padded == 0, -100)).loss
    torch.testing.assert_close(loss, sum(losses))


# --- Packed ---

LENGTHS = ((5, 9, 1, 7), (12, 10))  # documents of the two rows


def packed_rows():
    """The documents, and the two rows: their ids, positions, and labels that score no document's first token."""
    documents = [[tokens(1, length, seed=length) for length in lengths] for lengths in LENGTHS]
    ids = torch.cat([torch.cat(row, dim=1) for row in documents])
    positions = torch.stack([torch.cat([torch.arange(length) for length in lengths]) for lengths in LENGTHS])
    return documents, ids, positions, ids.masked_fill(positions == 0, -100)


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
@pytest.mark.parametrize("options", [{}, {"use_cache": True}, {"use_cache": False}], ids=str)
def test_packed_documents_do_not_see_one_another(model, attention, options):
    """By default too, where a Llama that is given no cache makes one, and with it sees the documents before."""
    documents, ids, positions, _ = packed_rows()
    separate = torch.cat([torch.cat([logits(model, document) for document in row], dim=1) for row in documents])
    with attention_of(model, attention), torch.no_grad():
        output = model(ids, position_ids=positions, **options)
    torch.testing.assert_close(output.logits, separate, **TOLERANCE)
    assert (output.past_key_values is not None) == options.get("use_cache", True)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])  # flex_attention has no backward pass on a CPU
def test_packed_documents_teach_the_same(model, attention):
    """The loss and every gradient are the sums of those of the documents alone."""
    documents, ids, positions, labels = packed_rows()
    scored = (labels != -100).sum()
    packed, alone = copy.deepcopy(model).train(), copy.deepcopy(model).train()
    with attention_of(packed, attention):
        loss = packed(ids, position_ids=positions, labels=labels, num_items_in_batch=scored).loss
        loss.backward()
    total = 0.0
    for document in (document for row in documents for document in row if document.shape[1] > 1):
        part = alone(document, labels=document, num_items_in_batch=scored).loss
        part.backward()
        total += part.detach()
    torch.testing.assert_close(loss.detach(), total)
    for (name, one), other in zip(packed.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, **TOLERANCE, msg=name)


def test_a_cache_made_for_plain_rows_goes_on(model):
    """The other side of making the cache after the masks: what it holds is what generation needs."""
    ids = tokens(2, 12)
    with torch.no_grad():
        first = model(ids[:, :9], position_ids=torch.arange(9)[None])
        second = model(ids[:, 9:], past_key_values=first.past_key_values)
    assert second.past_key_values.get_seq_length() == 12
    torch.testing.assert_close(second.logits, logits(model, ids, use_cache=False)[:, 9:], **TOLERANCE)
