"""Bytes per token of tokenizers, by kind of text.

The texts are on every machine: Python source of packages that the default split holds out, Python's manual, random
numbers, and short samples of other languages.
"""

import ast
import random
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

from transformers import PreTrainedTokenizerBase

from training.corpus.curation.config import DataConfig
from training.corpus.curation.curation import Curation

PYTHON_BYTES = 5_000_000  # bytes of source to read; only the held-out part is measured
DEEP = 12  # leading spaces from which a line counts as deeply indented

SAMPLES = {
    "German, French, Spanish, Polish": [
        "Am Morgen öffnete die Bäckerin das Fenster und hörte, wie der Regen über die Dächer lief. Niemand wusste,",
        "wann der nächste Zug kommen würde, also blieb man sitzen und trank Kaffee.",
        "Le matin, la boulangère ouvrait la fenêtre et écoutait la pluie sur les toits. Personne ne savait quand le",
        "prochain train arriverait ; on restait donc assis à boire du café.",
        "Por la mañana la panadera abría la ventana y escuchaba la lluvia sobre los tejados. Nadie sabía cuándo",
        "llegaría el próximo tren, así que la gente se quedaba sentada tomando café.",
        "Rano piekarka otwierała okno i słuchała deszczu na dachach. Nikt nie wiedział, kiedy przyjedzie następny",
        "pociąg, więc wszyscy siedzieli i pili kawę.",
    ],
    "Russian, Greek": [
        "Утром булочница открывала окно и слушала, как дождь идёт по крышам. Никто не знал, когда придёт следующий",
        "поезд, поэтому все сидели и пили кофе.",
        "Το πρωί η φουρνάρισσα άνοιγε το παράθυρο και άκουγε τη βροχή πάνω στις στέγες. Κανείς δεν ήξερε πότε θα έρθει",
        "το επόμενο τρένο, κι έτσι όλοι κάθονταν κι έπιναν καφέ.",
    ],
    "Arabic, Hindi": [
        "في الصباح فتحت الخبازة النافذة وسمعت المطر على السطوح.",
        "لم يعرف أحد متى يصل القطار التالي، فجلس الجميع يشربون القهوة.",
        "सुबह उसने खिड़की खोली और छतों पर बारिश की आवाज़ सुनी।",
        "किसी को नहीं पता था कि अगली रेलगाड़ी कब आएगी, इसलिए सब बैठकर चाय पीते रहे।",
    ],
    "Chinese, Japanese, Korean": [
        "早上，面包师打开窗户，听着雨落在屋顶上。",
        "没有人知道下一班火车什么时候来，所以大家都坐着喝咖啡。",
        "朝、パン屋さんは窓を開けて、屋根に落ちる雨の音を聞いていた。",
        "次の電車がいつ来るのか誰も知らないので、みんな座ってコーヒーを飲んでいた。",
        "아침에 빵집 주인은 창문을 열고 지붕 위로 떨어지는 빗소리를 들었다.",
        "다음 기차가 언제 올지 아무도 몰라서 모두 앉아서 커피를 마셨다.",
    ],
    "symbols, emoji": [
        "∀x ∈ ℝ: x² ≥ 0 → √x² = |x|; a ≠ b ⇒ ∑ᵢ (aᵢ − bᵢ)² > 0.",
        "🦊🐶👩‍💻 ✅ 42 °C ± 0.5 €19.99 █▓▒░ ├── └──",
    ],
}


def kinds_of_text() -> dict[str, list[str]]:
    """Texts by kind. The Python ones depend on the packages installed here; the others are always the same."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Curation(DataConfig(max_bytes=PYTHON_BYTES), Path(folder)).run()
        documents = [document.text for document in corpus.documents("validation")]
    return {
        "Python source": documents,
        "its docstrings": [docstring for text in documents for docstring in _docstrings(text)],
        "its deeply indented lines": ["".join(_deep_lines(text)) for text in documents],
        "English manual": [topics[name] for name in sorted(topics)],
        "numbers, dates": [_numbers()],
        **SAMPLES,
    }


def measure(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> tuple[float | None, float]:
    """Bytes of UTF-8 per token, and bytes encoded per second, for texts of one kind.

    The first is None if the tokenizer cannot encode the text: it raises, or replaces characters by the unknown token.
    """
    size = sum(len(text.encode()) for text in texts)
    started = time.perf_counter()
    try:
        encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    except Exception:  # tokenizers raises no narrower class
        return None, 0.0
    speed = size / (time.perf_counter() - started)
    if any(tokenizer.unk_token_id in ids for ids in encoded) and tokenizer.unk_token not in "".join(texts):
        return None, speed
    return size / max(1, sum(map(len, encoded))), speed


def compare(tokenizers: dict[str, PreTrainedTokenizerBase], kinds: dict[str, list[str]]) -> str:
    """The table as text: one row per kind of text, one column per tokenizer, with the difference from the first.

    Args:
        tokenizers: by display name.
        kinds: texts by kind; empty ones are left out.
    """
    kinds = {kind: texts for kind, texts in kinds.items() if any(texts)}
    rows, speeds = [], {}
    for kind, texts in kinds.items():
        figures = []
        for name, tokenizer in tokenizers.items():
            figure, speed = measure(tokenizer, texts)
            speeds.setdefault(name, speed)  # of the first kind, which is the largest
            figures.append(figure)
        rows.append((kind, sum(len(text.encode()) for text in texts), figures))

    lines = []
    letters = [chr(ord("A") + place) for place in range(len(tokenizers))]
    for letter, (name, tokenizer) in zip(letters, tokenizers.items(), strict=True):
        lines.append(f"{letter}: {name} ({len(tokenizer):,} tokens; encodes {speeds[name] / 1e6:.1f} MB/s)")
    width = max(map(len, kinds))
    lines += ["", f"{'bytes per token':{width}}  {'bytes':>9}" + "".join(f"{letter:>16}" for letter in letters)]
    for kind, size, figures in rows:
        cells = "".join(_cell(figure, figures[0], place) for place, figure in enumerate(figures))
        lines.append(f"{kind:{width}}  {size:>9,}{cells}")
    if any(figure is None for _, _, figures in rows for figure in figures):
        lines.append("-: it cannot encode this text")
    return "\n".join([*lines, "More bytes per token is better: the same text takes fewer tokens."])


def _cell(figure: float | None, first: float | None, place: int) -> str:
    if figure is None:
        return f"{'-':>16}"
    change = f"({round(100 * (figure / first - 1)):+}%)" if place and first else ""
    return f"{figure:8.2f}{change:>8}"


def _docstrings(source: str) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about invalid escapes in other packages
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


def _deep_lines(source: str) -> Iterator[str]:
    return (line for line in source.splitlines(keepends=True) if line.startswith(" " * DEEP) and line.strip())


def _numbers() -> str:
    """Two thousand log lines: dates, amounts, counts, hexadecimal."""
    draw = random.Random(0)
    lines = []
    for _ in range(2000):
        day = f"{draw.randrange(1990, 2030)}-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02}"
        clock = f"{draw.randrange(24):02}:{draw.randrange(60):02}:{draw.randrange(60):02}"
        amount, count = draw.uniform(-1e4, 1e4), int(10 ** draw.uniform(0, 9))
        lines.append(f"{day} {clock} {amount:.2f} {count} 0x{draw.randrange(2**32):08x}")
    return "\n".join(lines)
