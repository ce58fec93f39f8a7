"""Readers of recipes, models, and what stages have written."""

import functools
from pathlib import Path
from typing import Any

import torch
from data_readers import SFT, TASK
from reader import Reader, put, putting
from tiny_stages import MODEL, write_data, write_model, write_tokenizer

from training.commands import plot, run
from training.commands.evaluate import EvaluateConfig
from training.commands.prepare import PrepareConfig
from training.common.metrics import MetricsLog
from training.data.shards import check_hashes, check_tokenizer, open_shards
from training.eval.results.comparison import compare_folders
from training.eval.results.summary import write_summary
from training.planner.recipes.predictions import compare
from training.pretraining.config import PretrainConfig
from training.stages.flags import parse
from training.stages.provenance import check_stage, digest
from training.stages.stage import Stage
from training.tuning.keys.trl_options import read_values
from training.tuning.pipeline.resume import newest_checkpoint
from training.watching import screen, watch, words


def put_stages() -> None:
    write_tokenizer(Path("tokenizer"))
    write_data(Path("data"), Path("tokenizer"))


def open_data() -> None:
    for split in ("train", "validation"):
        open_shards("data", split)
    check_hashes("data")
    check_tokenizer("data", "tokenizer")


def put_model() -> None:
    write_tokenizer(Path("tokenizer"))
    write_model(Path("model"), Path("tokenizer"))


def open_model() -> None:
    from training.chat.model import ChatModel

    model = ChatModel.open("model")
    model.check("Where is the cat?", "Be brief.")


METRICS = [
    {"step": step, "tokens": 100 * step, "seconds": 1.5 * step, "loss": 5.0 / step, "bits_per_byte": 2.0 / step}
    | {"tokens_per_second": 1000, "mfu": 0.1, "learning_rate": 1e-3, "grad_norm": 0.3}
    for step in range(1, 6)
]


METRICS.append({"step": 5, "tokens": 500, "seconds": 8.0, "validation_loss": 4.0, "validation_bits_per_byte": 1.5})


def put_watched() -> None:
    stage = Stage("pretrain", "run", {"max_steps": 9, "num_train_epochs": 2}, {}, [])
    put(f"{stage.begin()}/metrics.jsonl", METRICS)
    put(f"{stage.folder}/samples.jsonl", [{"step": 5, "prompt": "The", "text": "The cat\tsat\nand left."}] * 2)
    put(f"{stage.folder}/incidents.jsonl", [{"step": 4, "incident": "spike", "loss": 9.0}])
    head = {"step": 4, "layer": 0, "head": 1, "probe": "repeated", "induction": 0.5, "copying": 0.2}
    put(f"{stage.folder}/insight/heads.jsonl", [head, head | {"head": 2}])
    stage.finish({}, wrote="model")


def watch_run() -> None:
    found = watch.Watch.open(["run"])
    for size in ((40, 10), (100, 40)):
        screen.compose(found.runs, *size)
    for followed in found.runs.values():
        words.last_line(followed)
        [words.line_of(followed, record) for record in followed.new]


def read_plot() -> None:
    runs = {"run": plot._read(Path("run"))}
    plot.remarks(list(runs.values()), "loss")
    plot._table({name: run.records for name, run in runs.items()})


def draw_plot() -> None:
    plot.main(["run", "--output", "plot.svg"])


FIGURE = {"value": 0.5, "stderr": 0.1, "n": 4, "chance": 0.25, "unit": "share"}


RESULTS = {
    "conditions": {"chats": "greedy"},
    "models": {
        name: {
            "folder": name,
            "parameters": 1000,
            "seconds": {"chats": 1.0},
            "figures": {
                "chats": {"sums": {"ends": FIGURE}},
                "texts": {"news": {"bits_per_byte": FIGURE | {"unit": "bits per byte"}}},
            },
            "subtasks": {"all": {"sums": {"ends": FIGURE}}},
            "samples": {"sums": [{"prompt": "Who?", "answer": "It."}]},
        }
        for name in ("base", "chat")
    },
}


OUTCOMES = [{"kind": "chats", "name": "sums", "item": f"{n}", "scores": {"ends": n % 2}} for n in range(4)]


def put_run() -> None:
    put_pretrained("runs/mine/pretrain")
    stage = Stage("evaluate", "runs/mine/evaluate", {}, {}, [])
    put(f"{stage.begin()}/results.json", RESULTS)
    stage.finish({}, wrote="results")
    put("runs/mine/summary.png", b"drawn before")


def put_pretrained(folder: str) -> None:
    inputs = {"data": "1", "tokenizer": "2"}
    stage = Stage("pretrain", folder, {"data": "data", "max_steps": 5, "optimizer": {"name": "muon"}}, inputs, [])
    put(f"{stage.begin()}/metrics.jsonl", METRICS)
    stage.finish({"loss": 1.0}, wrote="model")


def read_stage() -> None:
    check_stage("run", "pretrain", key="model")
    digest("run", "model")
    recipe = {"data": "data", "max_steps": 5, "optimizer": {"name": "muon"}}
    Stage("pretrain", "run", recipe, {"data": "1", "tokenizer": "2"}, []).is_current()


PREPARE = {
    "output_dir": "new",
    "tokenizer": "tokenizer",
    "workers": 1,
    "data": {"sources": {"a": {"path": "rows.jsonl", "weight": 1.0, "max_documents": 10}}, "seed": 3},
    "instructions": {"train": 10, "validation": 5},
}


PRETRAIN = {
    "output_dir": "new",
    "tokenizer": "tokenizer",
    "data": {"data": 1.0},
    "model": MODEL,
    "optimizer": {"name": "muon", "learning_rate": 1e-3},
    "max_steps": 4,
    "eval_sequences": 8,
    "report_to": ["tensorboard"],
}


EVALUATE = {
    "output_dir": "new",
    "models": {"base": "model"},
    "data": "data",
    "chats": {"sums": {"file": "items.jsonl", "rewards": ["ends"]}},
    "tasks": ["sums"],
    "limits": {"chats": 4},
}


def put_fitted() -> None:
    put_folder()
    open_folder()


def open_folder() -> None:
    run.open_run(Path("recipes"), run.read_config(Path("recipes"), {"minutes": 5.0}), [])


def put_folder() -> None:
    putting({"recipes/prepare.yaml": PREPARE, "recipes/pretrain.yaml": PRETRAIN, "recipes/sft.yaml": SFT})()
    putting({"recipes/run.yaml": {"minutes": 3}, "recipes/evaluate.yaml": EVALUATE, "tasks/sums.yaml": TASK})()
    putting({"items.jsonl": [{"question": "Who?"}]})()


def put_checkpoint() -> None:
    from training.pretraining.checkpoint import Checkpoints

    put_model()
    put("metrics.jsonl", METRICS)
    progress = {"step": 3, "validation_loss": 1.0, "seconds": 2.0}
    Checkpoints(Path("checkpoints"), 9, 0, -1, False, [Path("metrics.jsonl")]).save(progress, lambda: state().capture())


def state() -> Any:
    from modeling_scratch import ScratchForCausalLM
    from training.optim.config import OptimizerConfig
    from training.optim.optimizer import build_optimizer
    from training.pretraining.state import TrainingState

    model = ScratchForCausalLM.from_pretrained("model")
    optimizer = build_optimizer(model, OptimizerConfig())
    model(torch.ones(1, 3, dtype=torch.long), labels=torch.ones(1, 3, dtype=torch.long)).loss.backward()
    optimizer.step()
    return TrainingState(model, optimizer, "model", True)


@functools.cache
def any_state() -> Any:
    return state()


def open_checkpoint() -> None:
    from training.pretraining.checkpoint import Checkpoints
    from training.stages.checkpoints import read_checkpoints

    folder = Path("checkpoints")
    sorted(found.step for found in read_checkpoints(folder))
    log = MetricsLog(Path("copy.jsonl"), 0)
    log.file.write_bytes(Path("metrics.jsonl").read_bytes() if Path("metrics.jsonl").is_file() else b"")
    MetricsLog(log.file, 3)
    checkpoints = Checkpoints(folder, 9, 0, -1, False, [])
    try:
        if newest := checkpoints.newest():
            any_state().restore(newest.folder)
    finally:
        for aside in folder.glob("*.damaged"):
            aside.rename(aside.with_suffix(""))


def put_stock() -> None:
    from modeling_scratch import ScratchForCausalLM
    from modeling_scratch.conversion_scratch import to_stock

    put_model()
    to_stock(ScratchForCausalLM.from_pretrained("model"), "qwen3").save_pretrained("stock")


def import_stock() -> None:
    from training.commands.import_model import read_config
    from training.model_io.model_folder import read_weights

    read_config(Path("stock"), "stock")
    read_weights("stock")


def put_foreign() -> None:
    import foreign_checkpoints as foreign

    foreign.write("ckpt.pt", foreign.nanogpt(foreign.stock_gpt2("gelu")))
    foreign.write("model.bin", foreign.llama2c_binary(foreign.stock_llama(), 0, tied=False))
    settings = {"model_config.yaml": foreign.litgpt_settings()}
    foreign.write("lit/lit_model.pth", foreign.litgpt(foreign.stock_llama()), settings)


def import_foreign() -> None:
    from training.foreign.projects import find_checkpoint, read_foreign, to_scratch
    from training.foreign.sizes import Sizes

    for name in ("ckpt.pt", "model.bin", "lit"):
        if file := find_checkpoint(name):
            to_scratch(file, read_foreign(file, Sizes()))


def put_gguf() -> None:
    from training.commands.export import main

    put_model()
    main(["--model=model", "--to=gguf", "--output_dir=gguf"])


def import_gguf() -> None:
    from training.engines.gguf_network import read_network
    from training.engines.gguf_path import find_gguf
    from training.engines.gguf_reader import read_gguf
    from training.engines.gguf_tokenizer import has_tokenizer, rebuild_tokenizer, settings_of
    from training.foreign.projects import naming, to_scratch

    if file := find_gguf("gguf"):
        checkpoint = read_gguf(file)
        with naming(file):
            stock = read_network(checkpoint)
        to_scratch(file, stock)
        if has_tokenizer(checkpoint):
            settings_of(checkpoint, rebuild_tokenizer(checkpoint), stock.config.vocab_size)


def read_adapter() -> None:
    from training.tuning.adapters import check_adapter

    check_adapter("adapter", "model", "adapter")


PREDICTED = {
    "layout": "CPU",
    "devices": 1,
    "steps": 5,
    "tokens_per_step": 100,
    "step_seconds": [0.1, 0.2, 0.4],
    "memory_bytes": [1000, 2000, 3000],
    "dollars_per_device_hour": 2.5,
}


def put_predicted() -> None:
    put_pretrained("run")
    put("run/plan.json", PREDICTED)


def read_attention() -> None:
    from training.insight.record import Record

    Record.open("insight").snapshot(8)


def put_attention() -> None:
    from insight import write_record

    write_record(Path("insight"))


READERS = {
    "plan of a run": Reader(
        put_predicted, ("run/plan.json", "run/metrics.jsonl", "run/provenance.json"), lambda: compare(Path("run"))
    ),
    "recipe prepare": Reader(
        putting({"a.yaml": PREPARE}), ("a.yaml",), lambda: parse(PrepareConfig, ["--config", "a.yaml"], "")
    ),
    "recipe pretrain": Reader(
        putting({"a.yaml": PRETRAIN}), ("a.yaml",), lambda: parse(PretrainConfig, ["--config", "a.yaml"], "")
    ),
    "recipe evaluate": Reader(
        putting({"a.yaml": EVALUATE}), ("a.yaml",), lambda: parse(EvaluateConfig, ["--config", "a.yaml"], "")
    ),
    "recipe sft": Reader(putting({"a.yaml": SFT}), ("a.yaml",), lambda: read_values("sft", ["--config", "a.yaml"])),
    "recipe folder": Reader(
        put_fitted,
        (
            "run.json",
            "recipes/prepare.yaml",
            "recipes/pretrain.yaml",
            "recipes/run.yaml",
            "recipes/evaluate.yaml",
            "tasks/sums.yaml",
        ),
        open_folder,
    ),
    "shards": Reader(
        put_stages,
        ("data/manifest.json", "data/train-00000.ds", "data/train-00000.ds.index", "data/provenance.json"),
        open_data,
    ),
    "model": Reader(
        put_model,
        tuple(
            f"model/{file}"
            for file in (
                *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
                *("tokenizer_config.json", "chat_template.jinja", "provenance.json"),
            )
        ),
        open_model,
        slow=4,
    ),
    "import": Reader(put_stock, ("stock/config.json", "stock/model.safetensors"), import_stock, slow=4),
    "GGUF file": Reader(put_gguf, ("gguf/scratch-model-F32.gguf",), import_gguf, slow=5),
    "foreign checkpoint": Reader(
        put_foreign,
        ("ckpt.pt", "model.bin", "lit/lit_model.pth", "lit/model_config.yaml"),
        import_foreign,
        slow=2,
    ),
    "checkpoint": Reader(
        put_checkpoint, ("checkpoints/step-00000003/complete.json", "metrics.jsonl"), open_checkpoint, slow=4
    ),
    "trainer checkpoint": Reader(
        putting({"checkpoint-2/trainer_state.json": {"global_step": 2}, "checkpoint-2/rng_state.pth": b"x"}),
        ("checkpoint-2/trainer_state.json",),
        lambda: newest_checkpoint(Path(".")),
    ),
    "attention": Reader(
        put_attention,
        tuple(f"insight/{file}" for file in ("probes.json", "steps.jsonl", "heads.jsonl", "maps/00000008.safetensors")),
        read_attention,
    ),
    "adapter": Reader(
        lambda: (put_model(), put("adapter/adapter_config.json", {"base_model_name_or_path": "model", "r": 4})),
        ("adapter/adapter_config.json",),
        lambda: read_adapter(),
    ),
    "provenance": Reader(lambda: put_pretrained("run"), ("run/provenance.json", "run/metrics.jsonl"), read_stage),
    "metrics": Reader(lambda: put_pretrained("run"), ("run/metrics.jsonl", "run/provenance.json"), read_plot),
    "watch": Reader(
        put_watched,
        tuple(f"run/{file}" for file in ("metrics.jsonl", "samples.jsonl", "incidents.jsonl", "insight/heads.jsonl")),
        watch_run,
    ),
    "plot": Reader(lambda: put_pretrained("run"), ("run/metrics.jsonl", "run/provenance.json"), draw_plot, slow=40),
    "report": Reader(
        put_run,
        tuple(
            f"runs/mine/{file}"
            for file in ("pretrain/metrics.jsonl", "pretrain/provenance.json", "evaluate/results.json")
        ),
        lambda: write_summary(Path("runs/mine"), picture=False),
    ),
    "picture": Reader(put_run, ("runs/mine/evaluate/results.json",), lambda: write_summary(Path("runs/mine")), slow=80),
    "results": Reader(
        putting({"a/results.json": RESULTS, "a/items/base.jsonl": OUTCOMES, "a/items/chat.jsonl": OUTCOMES}),
        ("a/results.json", "a/items/base.jsonl"),
        lambda: compare_folders([Path("a")]),
    ),
}
