"""recipes/induction with the blocks that its script writes."""

import json
import subprocess
import sys

from terminal import ROOT

SCRIPT = ROOT / "recipes" / "induction" / "blocks.py"


def test_every_document_is_a_block_repeated(tmp_path):
    subprocess.run([sys.executable, SCRIPT, "--output_dir", tmp_path], check=True)
    texts = [json.loads(line)["text"] for line in (tmp_path / "text.jsonl").read_text().splitlines()]
    assert len(texts) == len(set(texts)) == 34_000
    symbols, periods = set(), set()
    for text in texts:
        period = text.index(text[0], 1)
        block = text[:period]
        assert len(text) == 63 and len(set(block)) == period and (block * 4)[:63] == text
        symbols |= set(block)
        periods.add(period)
    assert len(symbols) == 64 and periods == set(range(16, 33))
    subprocess.run([sys.executable, SCRIPT, "--output_dir", tmp_path / "again"], check=True)
    assert (tmp_path / "again" / "text.jsonl").read_bytes() == (tmp_path / "text.jsonl").read_bytes()
