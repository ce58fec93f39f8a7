"""Time of evaluation against items, of `scratch serve` against simultaneous requests, of the arena against voters.

The model is that of benchmarks/serving.py, with random weights and 4,096 tokens, so that every answer is as
long as is allowed.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import arena_load
from benchmarks.scaling_curves import CLOCKS, Curve, Point, Quantity
from benchmarks.scaling_data import VOCABULARY, as_point, small_tokenizer, write_text
from benchmarks.serving import SAMPLING, contestants, small_model
from benchmarks.stages import cost
from training.model_io.model_folder import save_model
from training.model_io.tokenizers import open_tokenizer
from training.serving.engine import Engine

GROUP = "use"
ANSWER = 32  # tokens
BATTLES = 400  # of all voters together
FEWEST, MOST = 2, 50  # of each; the page takes at most 60 prompts of a voter in a minute


def write_model(folder: Path) -> Path:
    """The model to evaluate and to serve, unless it is there already."""
    if not (folder / "model").exists():
        save_model(small_model(vocab_size=VOCABULARY), small_tokenizer(folder), folder / "model")
    return folder / "model"


def write_items(folder: Path, count: int) -> dict[str, Path]:
    """Questions and pairs: pieces of Python source, cut in two, and the same with the other half of the next one."""
    with write_text(folder / "1.jsonl", 1e6).open(encoding="utf-8") as stream:
        text = "".join(json.loads(line)["text"] for line in stream)
    pieces = [text[start : start + 300] for start in range(0, 300 * (count + 1), 300)]
    rows: dict[str, list[dict[str, str]]] = {"chats": [], "pairs": []}
    for piece, other in zip(pieces, pieces[1:], strict=False):
        rows["chats"].append({"prompt": piece[:100], "completion": piece[100:]})
        rows["pairs"].append({"prompt": piece[:100], "chosen": piece[100:], "rejected": other[100:]})
    files = {}
    for kind, records in rows.items():
        files[kind] = folder / f"{kind}-{count}.jsonl"
        files[kind].write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return files


def evaluate(items: int, folder: Path, clock: str, kind: str) -> Point:
    """`scratch evaluate` on so many questions or pairs."""
    file = write_items(folder, items)[kind]
    measured = f"{{items: {{file: {file}}}}}" if kind == "chats" else f"{{items: {file}}}"
    options: dict[str, Any] = {"models": f"{{model: {write_model(folder)}}}", kind: measured, f"limits.{kind}": items}
    with tempfile.TemporaryDirectory() as temporary:
        options |= {"output_dir": f"{temporary}/scores", "max_new_tokens": ANSWER}
        return as_point(cost("evaluate", options, torch.get_num_threads()), clock)


def answer_all(served: Engine, count: int) -> int:
    """Tokens of so many answers, requested together."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(8, VOCABULARY - 8, (count, ANSWER), generator=generator).tolist()
    return contestants(served.model, served, prompts, ANSWER, SAMPLING["greedy"])["all at once"]()


def serve(requests: int, folder: Path, clock: str) -> Point:
    """Seconds until all of the requests that come at once are answered, by an engine with the defaults of serving."""
    model, now = small_model(vocab_size=VOCABULARY), CLOCKS[clock]
    model.generation_config.eos_token_id = None  # only its limit ends an answer
    with Engine(model, open_tokenizer(small_tokenizer(folder), "tokenizer")) as engine:
        answer_all(engine, 2)  # warms up
        started = now()
        tokens = answer_all(engine, requests)
        taken = now() - started
    return {"seconds": taken, "tokens_per_second": tokens / taken}


def load_arena(voters: int, _: Path) -> Point:
    """Waiting time of voters who never pause, and the server's processor time for an action."""
    found = arena_load.measure(voters, min(MOST, max(FEWEST, BATTLES // voters)), pause=0)
    return {"waiting": found["all"]["median"], "processor": found["processor_ms"]}


def curves(clock: str) -> list[Curve]:
    """All curves of the group; time by `clock`, but what voters wait is always by the clock on the wall."""
    command = (Quantity("seconds", "time, s", added=True), Quantity("megabytes", "memory, MB", fitted=False))
    answered = (Quantity("seconds", "time, s"), Quantity("tokens_per_second", "tokens per second", fitted=False))
    waiting = (
        Quantity("waiting", "median wait for an action, ms"),
        Quantity("processor", "server, processor ms an action", fitted=False),
    )
    at_once = (1, 2, 4, 8, 16, 32, 64, 128)

    def answers(items: int, folder: Path) -> Point:
        return evaluate(items, folder, clock, "chats")

    def pairs(items: int, folder: Path) -> Point:
        return evaluate(items, folder, clock, "pairs")

    def served(requests: int, folder: Path) -> Point:
        return serve(requests, folder, clock)

    return [
        Curve(GROUP, "evaluation", "answers", "items", (32, 64, 128, 256, 512), (4,), answers, command),
        Curve(GROUP, "evaluation", "pairs", "items", (64, 128, 256, 512, 1024), (4,), pairs, command),
        Curve(GROUP, "serving", "", "requests at once", at_once, (1, 2), served, answered),
        Curve(GROUP, "arena", "", "voters", (1, 3, 10, 30, 100, 300), (2,), load_arena, waiting),
    ]
