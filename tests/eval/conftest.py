"""A byte-level tokenizer with the chat template, and tiny models: enough to run every measure in a moment."""

import pytest
import torch
from taught import RECORDS, SUMS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=SPECIAL[0], pad_token=SPECIAL[1], chat_template=CHAT_TEMPLATE
    )


@pytest.fixture(scope="session")
def tiny_model():
    """A function that makes a random Llama of 260 tokens, the same one for the same seed."""

    def make(context: int = 256, seed: int = 0, spread: float = 0.2) -> LlamaForCausalLM:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=260,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=context,
            initializer_range=spread,  # wider than usual, so that random models have strong opinions
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=1,
        )
        return LlamaForCausalLM(config).eval()

    return make


@pytest.fixture(scope="session")
def taught(tokenizer, tiny_model):
    """A model overfitted to RECORDS and SUMS."""
    model = tiny_model(spread=0.05).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    texts = [tokenizer.apply_chat_template(record["messages"], tokenize=False) for record in RECORDS]
    texts += [f"{prompt}{answer}<|endoftext|>" for prompt, answer in SUMS.items()]
    batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for _ in range(120):
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()
