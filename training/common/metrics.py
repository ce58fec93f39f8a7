"""Training metrics: one JSON object per line in `metrics.jsonl`, and the same figures on a line for the terminal."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.files import write_whole
from training.common.json_files import fits

# of a pretraining run; tuning has METRICS, and with GRPO and RLOO SAMPLES
LOGS = METRICS, INCIDENTS, SAMPLES = "metrics.jsonl", "incidents.jsonl", "samples.jsonl"


class MetricsLog:
    """Append-only `metrics.jsonl`.

    Every line has `step`, `tokens` seen and `seconds` of training. Lines of training add `loss` (nats per token),
    `bits_per_byte`, `learning_rate`, `grad_norm` (before clipping), `tokens_per_second` and `mfu` (fraction of the
    measured rate of matrix products). Lines of validation add `validation_loss` and `validation_bits_per_byte`, and for
    a mixture of data `validation_loss/FOLDER` for each folder of shards.

    Args:
        file: may exist from an interrupted run.
        step: at which the run resumes; later lines of the interrupted run are dropped, since they come again.
    """

    def __init__(self, file: Path, step: int):
        self.file = file
        if not step:
            self.file.write_text("", encoding="utf-8")
            return
        kept = [record for record in read_log(file) if record["step"] <= step]
        write_whole(file, "".join(map(json_line, kept)), durable=True)

    def write(self, *records: dict[str, Any]) -> None:
        """Append a line for each record, see `json_line`."""
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write("".join(map(json_line, records)))


def json_line(record: dict[str, Any]) -> str:
    """A record as a line of JSON. NaN and infinity become null, since JSON has neither."""
    return json.dumps({key: finite(value) for key, value in record.items()}) + "\n"


def finite(value: Any) -> Any:
    """The value; None for NaN, infinity and a number beyond them."""
    try:
        return None if isinstance(value, (int, float)) and not math.isfinite(value) else value
    except OverflowError:
        return None


def read_metrics(file: Path) -> list[dict[str, float]]:
    """The records of a `metrics.jsonl`, see `read_log`.

    Raises:
        UserError: the file holds something else.
    """
    records = read_log(file)
    if not fits(records, [{str: (int, float, bool)}]):  # `same_bits` is true or false
        raise UserError(f"{file}: not the metrics of a training run (a figure is not a number)")
    return records


def read_log(file: Path) -> list[dict[str, Any]]:
    """Records of the file, without null, NaN and infinite figures, and without a last line that a crash cut off.

    Raises:
        UserError: the file holds something else.
    """
    if not file.is_file():
        return []
    records = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{file}: not a text file, so not the metrics of a training run") from None
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not fits(record, {"step": int}):
            raise UserError(f"{file}: not the metrics of a training run (a record has no 'step')")
        records.append({key: value for key, value in record.items() if finite(value) is not None})
    return records


def median_rate(records: list[dict[str, Any]]) -> float:
    """Median tokens per second; NaN if nothing was trained."""
    rates = [record["tokens_per_second"] for record in records if "tokens_per_second" in record]
    return statistics.median(rates) if rates else math.nan


def in_words(record: dict[str, float]) -> str:
    """A record of training as one line of text, without its step."""
    return (
        f"loss {record['loss']:.3f}, {record['bits_per_byte']:.3f} bits/byte, lr {record['learning_rate']:.2g}, "
        f"gradient {record['grad_norm']:.2g}, {record['tokens_per_second']:,} tokens/s, MFU {record['mfu']:.0%}"
    )


def as_duration(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 3:25:00."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
