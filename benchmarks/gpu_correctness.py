"""Correctness on a device: precision, attention, compilation, generation and resumption, each against a reference.

A check is a row: what was compared, the error, the limit, and whether it passed. Unless a row says otherwise, an error
is the norm of the difference divided by the norm of the reference. In bf16 the reference is fp32. The limit of a faster
way to compute the same is 1.5 times the error of the plain one, as in tests/modeling_scratch/test_decoding.py.
"""

import contextlib
import copy
import io
import multiprocessing
import os
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from transformers.utils import is_flash_attn_2_available

from modeling_scratch import PRESETS, ScratchConfig, ScratchForCausalLM

FP32 = 1e-4  # limit for another order of the same sums in fp32
LOGITS, GRADIENT, LOSS = 0.03, 0.06, 0.01  # limits for bf16 against fp32; of the loss, in nats per token
AS_GOOD = 1.5  # times the error of the plain way
STEPS, SAVE_STEPS, KILLED_AFTER = 30, 10, 17  # of the pretraining that is killed

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Where a section runs, and whether with tiny models."""

    device: torch.device
    small: bool


@dataclass(frozen=True)
class Outcome:
    """What a model computes from a batch: logits (scored positions, vocab), the loss, and its flat gradient."""

    logits: torch.Tensor
    loss: float
    gradient: torch.Tensor


def check(what: str, error: float, limit: float) -> Row:
    """The row of a comparison. NaN does not pass."""
    return {"check": what, "error": error, "limit": limit, "passed": error <= limit}


def relative_error(values: torch.Tensor, reference: torch.Tensor) -> float:
    """Norm of the difference, divided by the norm of the reference."""
    values, reference = values.to(reference.device).double(), reference.double()
    return ((values - reference).norm() / reference.norm()).item()


def random_model(setting: Setting, preset: str = "qwen3", attention: str = "eager", **options: Any) -> nn.Module:
    """A small model on the CPU in fp32. Its weights are large enough for attention that is far from uniform."""
    sizes = {"vocab_size": 8192, "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8}
    if setting.small:
        sizes = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 4096}
    sizes["initializer_range"] = 1.4 / sizes["hidden_size"] ** 0.5
    torch.manual_seed(0)
    config = ScratchConfig.from_preset(preset, **(sizes | options))
    return ScratchForCausalLM._from_config(config, attn_implementation=attention).float()


def random_tokens(setting: Setting, model: nn.Module) -> torch.Tensor:
    """Token ids, (batch, seq), on the device."""
    shape = (2, 24) if setting.small else (4, 512)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, shape, generator=generator).to(setting.device)


def outcome(model: nn.Module, dtype: torch.dtype, input_ids: torch.Tensor, **inputs: torch.Tensor) -> Outcome:
    """Forward and backward as in training: autocast to `dtype`, and the loss without logits."""
    mask = inputs.get("attention_mask")
    scored = torch.ones_like(input_ids) if mask is None else mask
    labels = input_ids.masked_fill(scored == 0, -100)
    model.zero_grad()
    with torch.autocast(input_ids.device.type, dtype, enabled=dtype != torch.float32):
        with torch.no_grad():
            logits = model(input_ids, use_cache=False, **inputs).logits[scored.bool()]
        loss = model(input_ids, labels=labels, use_cache=False, skip_logits=True, **inputs).loss
    loss.backward()
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    return Outcome(logits.float(), loss.item(), gradient)


def precision(setting: Setting) -> list[Row]:
    """Every preset: fp32 on the device against the CPU, bf16 against fp32, and the loss without logits."""
    rows = []
    for preset in PRESETS:
        options = {"num_key_value_heads": None} if preset == "gpt2" else {}
        model = random_model(setting, preset, **options)
        input_ids = random_tokens(setting, model)
        expected = outcome(model, torch.float32, input_ids.cpu())
        model = model.to(setting.device)
        exact, rounded = outcome(model, torch.float32, input_ids), outcome(model, torch.bfloat16, input_ids)
        with torch.no_grad():
            from_logits = model(input_ids, labels=input_ids, use_cache=False).loss.item()
        rows += [
            check(f"{preset}, fp32 against CPU: logits", relative_error(exact.logits, expected.logits), FP32),
            check(f"{preset}, fp32 against CPU: gradient", relative_error(exact.gradient, expected.gradient), FP32),
            check(f"{preset}, loss without logits (nats)", abs(exact.loss - from_logits), FP32),
            check(f"{preset}, bf16 against fp32: logits", relative_error(rounded.logits, exact.logits), LOGITS),
            check(f"{preset}, bf16 against fp32: gradient", relative_error(rounded.gradient, exact.gradient), GRADIENT),
            check(f"{preset}, bf16 against fp32: loss (nats)", abs(rounded.loss - exact.loss), LOSS),
        ]
    return rows


def implementations(device: torch.device) -> list[str]:
    """The attention implementations that can train on the device."""
    on_gpu = ["flex_attention"] if device.type == "cuda" else []  # on a CPU it has no backward pass
    return ["sdpa", *on_gpu, *(["flash_attention_2"] if is_flash_attn_2_available() else [])]


def batches(input_ids: torch.Tensor) -> dict[str, tuple[dict[str, torch.Tensor], dict[str, Any]]]:
    """The cases of masking, each as inputs and options of the model."""
    batch, seq = input_ids.shape
    padding = torch.ones_like(input_ids)
    padding[0, seq * 2 // 3 :] = 0
    restarting = torch.arange(seq, device=input_ids.device).repeat(batch)[None]  # (1, batch * seq)
    packed = {"input_ids": input_ids.reshape(1, -1), "position_ids": restarting}
    return {
        "causal": ({"input_ids": input_ids}, {}),
        "padding": ({"input_ids": input_ids, "attention_mask": padding}, {}),
        "packed documents": (packed, {}),
        "sliding window": ({"input_ids": input_ids}, {"sliding_window": seq // 4}),
    }


def attention(setting: Setting) -> list[Row]:
    """Every implementation and case of masking, in fp32 and bf16, against eager attention in fp32."""
    rows = []
    cases = batches(random_tokens(setting, random_model(setting)))
    for case, (inputs, options) in cases.items():
        model = random_model(setting, **options).to(setting.device)
        exact, plain = outcome(model, torch.float32, **inputs), outcome(model, torch.bfloat16, **inputs)
        for name in implementations(setting.device):
            model.set_attn_implementation(name)
            for dtype in (torch.bfloat16,) if name == "flash_attention_2" else (torch.float32, torch.bfloat16):
                title = f"{name}, {case}, {'bf16' if dtype == torch.bfloat16 else 'fp32'}"
                rows += compare(title, outcome(model, dtype, **inputs), exact, plain, dtype)
    torch.compiler.reset()  # flex_attention is compiled for each case
    return rows


def compilation(setting: Setting) -> list[Row]:
    """Compiled layers and loss against the same uncompiled, in fp32 and bf16."""
    model = random_model(setting, attention="sdpa").to(setting.device)
    input_ids = random_tokens(setting, model)
    exact, plain = outcome(model, torch.float32, input_ids), outcome(model, torch.bfloat16, input_ids)
    model.compile_regions()
    rows = []
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        rows += compare(f"compiled, {name}", outcome(model, dtype, input_ids), exact, plain, dtype)
    torch.compiler.reset()
    return rows


def compare(title: str, found: Outcome, exact: Outcome, plain: Outcome, dtype: torch.dtype) -> list[Row]:
    """Rows for logits and gradient: against `exact`, with the error of `plain` as the measure in bf16.

    Args:
        exact: in fp32.
        plain: in bf16.
    """
    rows = []
    for name in ("logits", "gradient"):
        reference = getattr(exact, name)
        limit = FP32 if dtype == torch.float32 else AS_GOOD * relative_error(getattr(plain, name), reference)
        rows.append(check(f"{title}: {name}", relative_error(getattr(found, name), reference), limit))
    return rows


def generation(setting: Setting) -> list[Row]:
    """The decode loop of `generate` against the CPU's in fp32, and against the ordinary forward pass in bf16."""
    model = random_model(setting, attention="sdpa").eval()
    prompt = random_tokens(setting, model)[:, :16].cpu()
    new = 8 if setting.small else 64
    tokens = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, do_sample=False)
    expected = logits_of_choices(model, prompt, tokens)
    model = model.to(setting.device)
    found = logits_of_choices(model, prompt, tokens)
    choices = tokens[:, prompt.shape[1] :]
    # By how much a token had to lead for no rounding to change the choice.
    lead = expected.amax(-1) - expected.scatter(-1, choices[..., None], -torch.inf).amax(-1)
    clear = lead > 2 * (found - expected).abs().amax()
    lowered = copy.deepcopy(model).to(torch.bfloat16)
    with torch.no_grad():
        ordinary = lowered(tokens.to(setting.device)).logits[:, prompt.shape[1] - 1 : -1]
    limit = AS_GOOD * relative_error(ordinary.cpu(), expected)
    return [
        check("fp32 against CPU: logits", relative_error(found, expected), FP32),
        check("fp32 against CPU: tokens that differ", (found.argmax(-1) != choices)[clear].sum().item(), 0),
        check("share of choices too close to compare", 1 - clear.float().mean().item(), 0.1),
        check("bf16, cached: logits", relative_error(logits_of_choices(lowered, prompt, tokens), expected), limit),
    ]


def logits_of_choices(model: nn.Module, prompt: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Logits from which each token after the prompt is chosen, by `generate` itself: (batch, new tokens, vocab).

    Args:
        prompt: (batch, seq).
        tokens: (batch, seq + new tokens), to which the choices are forced.
    """
    output = model.generate(
        prompt.to(model.device),
        attention_mask=torch.ones_like(prompt, device=model.device),
        max_new_tokens=tokens.shape[1] - prompt.shape[1],
        do_sample=False,
        prefix_allowed_tokens_fn=lambda sequence, so_far: [tokens[sequence, len(so_far)].item()],
        return_dict_in_generate=True,
        output_logits=True,
    )
    return torch.stack(output.logits, dim=1).float().cpu()


def resumption(setting: Setting) -> list[Row]:
    """A pretraining that is killed and resumed, against two that are not: weights and optimizer after the last step.

    Some kernels add in no fixed order. The two undisturbed runs then differ too, and the resumed one may differ as
    they do.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder)
        train(setting, folder, "first")
        train(setting, folder, "second")
        train(setting, folder, "resumed", killed_after=KILLED_AFTER)
        train(setting, folder, "resumed")
        first, second, resumed = (final_state(folder, run) for run in ("first", "second", "resumed"))
    differ, limit = (sum(not torch.equal(other[key], first[key]) for key in first) for other in (resumed, second))
    flat = [torch.cat([state[key].double().flatten() for key in first]) for state in (first, second, resumed)]
    apart = AS_GOOD * relative_error(flat[1], flat[0])
    return [
        check("killed and resumed: tensors that differ from a whole run", differ, limit and len(first)),
        check("killed and resumed: difference", relative_error(flat[2], flat[0]), apart),
    ]


def write_corpus(folder: Path) -> None:
    """Write shards of random tokens, and a tokenizer."""
    from modeling_scratch.tokenization_scratch import ScratchTokenizer
    from training.data.shards import write_manifest, write_shard

    ScratchTokenizer.train(["any text will do"], 270).save(folder / "tokenizer")
    (folder / "data").mkdir()
    random, splits = np.random.default_rng(0), {}
    for split, count in {"train": 200, "validation": 4}.items():
        splits[split] = write_shard(folder / "data", split, random.integers(270, size=(count, 64)), 270, "random")
        splits[split]["bytes"] = 4 * count * 64
    write_manifest(folder / "data", splits, folder / "tokenizer", 270, {})


def train(setting: Setting, folder: Path, run: str, killed_after: int | None = None) -> None:
    """Pretrain in a new process, from the run's newest checkpoint. It dies by SIGKILL after `killed_after`."""
    # A CUDA process cannot be forked; without CUDA a fork saves the seconds of the imports.
    context = multiprocessing.get_context("spawn" if setting.device.type == "cuda" else "fork")
    process = context.Process(target=pretrain, args=(folder, run, killed_after))
    process.start()
    process.join()
    expected = 0 if killed_after is None else -signal.SIGKILL
    if process.exitcode != expected:
        raise RuntimeError(f"the pretraining '{run}' ended with {process.exitcode}, not {expected}; see above")


def pretrain(folder: Path, run: str, killed_after: int | None) -> None:
    """The body of such a process: the loop of `scratch pretrain` itself."""
    from training.model_io.tokenizers import open_tokenizer
    from training.pretraining.accelerator import build_accelerator
    from training.pretraining.config import PretrainConfig
    from training.pretraining.loop import Pretrainer
    from training.stages.stage import Stage

    class Mortal(Pretrainer):
        def train_step(self) -> None:
            super().train_step()
            if self.step == killed_after:
                self.checkpoints.wait()  # so that there is one to resume from
                os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)  # a fork has only one
    config = PretrainConfig(
        output_dir=str(folder / run),
        data=str(folder / "data"),
        tokenizer=str(folder / "tokenizer"),
        preset="scratch",
        model={"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_dropout": 0.1},
        sequence_length=64,
        document_mask=True,
        global_batch_size=8,
        per_device_train_batch_size=4,
        max_steps=STEPS,
        save_steps=SAVE_STEPS,
        eval_steps=STEPS,
        eval_sequences=2,
        torch_compile=False,
    )
    stage = Stage("pretrain", config.output_dir, config, {}, [])
    with contextlib.redirect_stdout(io.StringIO()):  # its log
        stage.begin()
        tokenizer = open_tokenizer(config.tokenizer, "tokenizer")
        pretrainer = Mortal(config, stage.folder, tokenizer, build_accelerator(config))
        pretrainer.resume()
        if run == "resumed" and killed_after is None and pretrainer.step != KILLED_AFTER // SAVE_STEPS * SAVE_STEPS:
            raise RuntimeError(f"resumed from step {pretrainer.step}, not from the checkpoint before the kill")
        pretrainer.train(stage)


def final_state(folder: Path, run: str) -> dict[str, torch.Tensor]:
    """Weights and optimizer in the checkpoint of the last step."""
    (checkpoint,) = folder.glob(f"{run}.partial/checkpoints/step-{STEPS:08d}")
    tensors = {}
    for file in sorted(checkpoint.rglob("*.safetensors")):
        tensors |= {f"{file.stem}: {key}": tensor for key, tensor in load_file(file).items()}
    return tensors
