"""GGUF files that are changed copies of others, or that no exporter of ours writes."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

KINDS = {bool: "bool", int: "uint32", float: "float32", str: "string"}


def read_fields(file: Path) -> dict[str, Any]:
    """The settings of a file."""
    fields = gguf.GGUFReader(file).fields
    return {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a file in float32."""
    tensors = gguf.GGUFReader(file).tensors
    return {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy() for tensor in tensors}


def write_file(file: Path, fields: dict[str, Any], tensors: dict[str, np.ndarray], kind: str = "F32") -> Path:
    """Write a file; matrices in the given type.

    Args:
        fields: settings by their full keys; those with the value None are left out.
    """
    writer = gguf.GGUFWriter(file, fields["general.architecture"])
    for name, value in fields.items():
        if value is None or name == "general.architecture":
            continue
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            getattr(writer, f"add_{KINDS[type(value)]}")(name, value)
    for name, tensor in tensors.items():
        used = gguf.GGMLQuantizationType[kind if tensor.ndim == 2 else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(tensor, used), raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def changed(source: Path, file: Path, fields: dict[str, Any] | None = None, **tensors: np.ndarray | None) -> Path:
    """A copy with other settings and tensors; those with the value None are left out."""
    present = {name: tensor for name, tensor in (read_tensors(source) | tensors).items() if tensor is not None}
    return write_file(file, read_fields(source) | (fields or {}), present)
