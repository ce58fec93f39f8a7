"""Reader of GGUF files, for `scratch import`: the settings and tokenizer as values, the tensors in float32."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from training.common.errors import UserError, one_line
from training.common.files import check_file
from training.common.progress import progress_bar
from training.engines.gguf_file import PRECISIONS
from training.foreign.checkpoint import Checkpoint


class _Reader(gguf.GGUFReader):
    """The package's reader, which takes missing bytes for none and goes on to count them: it stops there."""

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> np.ndarray:
        if int(offset) + int(count) * np.dtype(dtype).itemsize > len(self.data):
            raise ValueError("it ends too early")
        return super()._get(int(offset), dtype, int(count), override_order)


def read_gguf(file: Path) -> Checkpoint:
    """The tensors of a file by their names in it, in float32 as (out, in), and beside them its settings by their keys.

    Raises:
        UserError: no file, a damaged one, one of several parts, or weights in another precision than `PRECISIONS`.
    """
    check_file(file, "model")
    try:
        reader = _Reader(file)
        beside = {key: _value(field) for key, field in reader.fields.items()}
        names = {tensor.name for tensor in reader.tensors}
    except Exception as error:  # of any class, where a file holds something else than the package expects
        raise UserError(f"'model': {file} is damaged ({one_line(error):.200}); copy it again") from None
    checkpoint = Checkpoint(file, {}, beside)
    parts = beside.get("split.count", 0)
    if parts not in (0, 1):
        raise checkpoint.error(f"it is one of {parts} parts; join them first, with `llama-gguf-split --merge`")
    if not names:
        raise checkpoint.error("it holds no tensors (a vocabulary alone?); give the file with the weights")
    kinds = {kind: name.upper() for name, (kind, _) in PRECISIONS.items()}
    for tensor in reader.tensors:
        if tensor.tensor_type not in kinds:
            raise checkpoint.error(
                f"{tensor.name} is in {tensor.tensor_type.name}, and scratch imports {', '.join(kinds.values())}; give "
                "a file in one of these"
            )
    with progress_bar(reader.tensors, desc="read", unit="tensor", leave=False) as tensors:
        for tensor in tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            # A copy: the file is mapped into memory, and may be replaced or deleted before the model is written.
            checkpoint.tensors[tensor.name] = torch.from_numpy(np.array(values, dtype=np.float32))
    return checkpoint


def precision_of(checkpoint: Checkpoint) -> str:
    """The precision of the matrices as the file names it, such as `in F16`; empty if it does not."""
    kind = checkpoint.beside.get("general.file_type")
    return next((f"in {name.upper()}" for name, (_, file_type) in PRECISIONS.items() if file_type == kind), "")


def _value(field: gguf.ReaderField) -> Any:
    """The value of a setting: a number of single precision as the shortest decimal that gives it."""
    value = field.contents()
    return float(str(np.float32(value))) if field.types == [gguf.GGUFValueType.FLOAT32] else value
