"""Greedy tokens of an exported model in other programs, beside those of transformers.

    python -m benchmarks.engines FOLDER --reference FILE                  # once, where transformers is
    python -m benchmarks.engines FOLDER --reference FILE --engine vllm    # where vLLM is

Without `--engine`, transformers generates the reference and writes it to FILE. With it, that program generates the same
number of tokens after the same ids of the same prompts, and the two are compared. The program needs an environment of
its own, without torch or transformers if it does not want them. All compute in fp32 on the processor. Tokens that would
end an answer are never drawn, so that every answer has its full length. Texts are compared too, if the program has a
tokenizer. The last line is JSON.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.engine_runs import ENGINES, Answers, Task, in_transformers

TEXTS = (
    "def read_lines(path):\n    ",
    "class Queue:\n    def __init__(self, items):\n        self.items = items\n",
    "import os\nimport sys\n\n\ndef main():\n",
    "for index, value in enumerate(values):\n    if value > 12345:\n",
    "Once upon a time there was",
    "The largest number of them is 2048, and",
    "Größe, naïve café — 你好 🙂\n",
    "<|im_start|>user\nReturn the sum of two numbers.<|im_end|>\n<|im_start|>assistant\n",
)


@dataclass
class Reference:
    """What transformers generated.

    Attributes:
        transformers: its version.
        ends: ids that were never drawn.
        prompts, answers: ids of `TEXTS`, and what follows each.
    """

    transformers: str
    ends: list[int]
    prompts: list[list[int]]
    answers: list[list[int]]


def make_reference(folder: str, tokens: int) -> Reference:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    settings = transformers.GenerationConfig.from_pretrained(folder)
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    prompts = [tokenizer(text)["input_ids"] for text in TEXTS]
    context = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True).max_position_embeddings
    room = context - max(map(len, prompts))
    if tokens > room:
        raise SystemExit(f"--tokens: only {room} fit into the context of {context} after the longest prompt")
    answers = in_transformers(Task(folder, "", [], prompts, tokens, ends)).ids
    return Reference(transformers.__version__, ends, prompts, answers)


def equal_tokens(expected: list[int], found: list[int]) -> int:
    """How many tokens are equal before the first that differs."""
    differing = (place for place, pair in enumerate(zip(expected, found)) if pair[0] != pair[1])
    return next(differing, min(len(expected), len(found)))


def compare(reference: Reference, answers: Answers) -> dict:
    """The figures of the last line."""
    equal = [equal_tokens(*pair) for pair in zip(reference.answers, answers.ids)]
    tokens = len(reference.answers[0])
    figures = {"prompts": len(equal), "tokens": tokens, "whole": equal.count(tokens), "equal_tokens": equal}
    if answers.encoded is not None:
        figures["texts"] = sum(ids == found for ids, found in zip(reference.prompts, answers.encoded))
    return figures


def installed(packages: tuple[str, ...]) -> str:
    """The version of the first of these packages that is installed."""
    for name in packages:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            pass
    return f"{packages[0]} of unknown version"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of the model, as `scratch export` writes it")
    parser.add_argument("--reference", required=True, help="JSON file")
    parser.add_argument("--engine", choices=ENGINES, help="the program that is compared; none: write the reference")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer in the reference")
    options = parser.parse_args()
    folder, file = str(Path(options.folder).resolve()), Path(options.reference)
    if options.engine is None:
        reference = make_reference(folder, options.tokens)
        file.write_text(json.dumps(asdict(reference)) + "\n", encoding="utf-8")
        print(
            f"wrote {file}: {len(TEXTS)} prompts, {options.tokens} tokens each, transformers {reference.transformers}"
        )
        return
    if not file.is_file():
        parser.error(f"{file} does not exist; write it first, without --engine, where transformers is installed")
    reference = Reference(**json.loads(file.read_text(encoding="utf-8")))
    run, packages = ENGINES[options.engine]
    tokens = len(reference.answers[0])
    with tempfile.TemporaryDirectory() as work:
        answers = run(Task(folder, work, list(TEXTS), reference.prompts, tokens, reference.ends))
    figures, program = compare(reference, answers), installed(packages)
    print(
        f"{program} beside transformers {reference.transformers}: {figures['whole']} of {figures['prompts']} answers "
        f"of {tokens} tokens are equal; equal tokens: {', '.join(map(str, figures['equal_tokens']))}"
    )
    if "texts" in figures:
        print(f"its tokenizer: {figures['texts']} of {len(TEXTS)} texts have the same ids")
    print(json.dumps({"benchmark": "engines", "engine": program, "transformers": reference.transformers} | figures))


if __name__ == "__main__":
    main()
