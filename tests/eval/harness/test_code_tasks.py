"""HumanEval by lm-eval, with the sandbox in the place of the program that runs answers; on items made up here."""

import itertools
import json
import math
import random
import sys

import pytest
from humaneval_file import write_humaneval
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from messages import refused

from training.common.errors import UserError
from training.eval.harness.catalog import TaskCatalog
from training.eval.harness.code_tasks import CodeEval, pass_at_k, sandboxed_code_eval
from training.eval.harness.local_data import LocalData
from training.eval.harness.runner import TaskRunner
from training.eval.measures.figures import MetricKey
from training.sandbox import SandboxLimits, check_isolation


@pytest.fixture(scope="module", autouse=True)
def isolated():
    try:
        check_isolation()
    except UserError as error:
        pytest.skip(str(error))


ITEMS = [
    {
        "task_id": "Made/0",
        "prompt": 'def double(x: int) -> int:\n    """Twice the number."""\n',
        "entry_point": "double",
        "canonical_solution": "    return 2 * x\n",
        "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
    },
    {
        "task_id": "Made/1",
        "prompt": "from typing import List\n\ndef helper(x):\n    return x + 1\n\n"
        'def largest(values: List[int]) -> int:\n    """The largest."""\n',
        "entry_point": "largest",
        "canonical_solution": "    return max(values)\n",
        "test": "def check(candidate):\n    assert helper(1) == 2\n    assert candidate([1, 5, 2]) == 5\n",
    },
]
CHEATS = [
    "    import os; os._exit(0)\n",
    "    class Yes:\n        def __eq__(self, other): return True\n    return Yes()\n",
    "    print('passed'); raise SystemExit(0)\n",
]


class Scripted(LM):
    """A language model that answers from a script, by prompt."""

    def __init__(self, answers):
        super().__init__()
        self.answers = {prompt: iter(itertools.cycle(given)) for prompt, given in answers.items()}
        self.asked = []

    def generate_until(self, requests, disable_tqdm=False):
        self.asked = [request.args[1] for request in requests]
        return [next(self.answers[request.args[0]]) for request in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        raise NotImplementedError

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


@pytest.fixture
def evaluate(tmp_path):
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps(item) + "\n" for item in ITEMS))

    def run(answers, **options):
        name = write_humaneval(tmp_path / "tasks", items, **options)
        model = Scripted({item["prompt"]: given for item, given in zip(ITEMS, answers)})
        with sandboxed_code_eval():
            manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
            results = simple_evaluate(
                model, tasks=[name], task_manager=manager, confirm_run_unsafe_code=True, bootstrap_iters=0
            )
        return results["results"][name], model

    return run


def test_canonical_solutions_pass_and_others_do_not(evaluate, monkeypatch):
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)  # the stock metric would refuse
    right = [[item["canonical_solution"]] for item in ITEMS]

    scores, model = evaluate(right)
    assert scores["pass@1,create_test"] == 1.0
    assert model.asked[0]["max_gen_toks"] == 1024 and not model.asked[0]["do_sample"]
    assert evaluate([right[0], ["    return min(values)\n"]])[0]["pass@1,create_test"] == 0.5


def test_an_answer_that_cheats_does_not_pass(evaluate):
    assert evaluate([CHEATS, CHEATS], samples=len(CHEATS))[0]["pass@1,create_test"] == 0.0


def test_samples_are_drawn_and_estimated(evaluate):
    """Two of four samples right, then one of four."""
    answers = [["    return 2 * x\n", "    return x\n"], ["    return 0\n"] * 3 + ["    return max(values)\n"]]

    scores, model = evaluate(answers, samples=4, ks=(1, 2, 4), temperature=0.6, max_gen_toks=64)

    assert len(model.asked) == 8
    assert model.asked[0]["do_sample"] and model.asked[0]["temperature"] == 0.6
    assert model.asked[0]["max_gen_toks"] == 64 and "\nclass" in model.asked[0]["until"]
    assert scores["pass@1,create_test"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert scores["pass@2,create_test"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert scores["pass@4,create_test"] == 1.0


def test_the_stock_metric_is_back_afterwards():
    import evaluate as library

    stock = library.load
    with sandboxed_code_eval():
        assert isinstance(library.load("code_eval"), CodeEval)
    assert library.load is stock
    assert not [name for name in sys.modules if name.startswith("lm_eval.tasks.humaneval")]


def test_tests_that_need_a_package_are_refused():
    with refused("tasks", "import numpy", "sandbox"):
        CodeEval(workers=1).compute(["import math\ndef check(f):\n    import numpy as np"], [["x = 1"]], k=[1])


def test_pass_at_k_is_left_out_where_samples_are_too_few():
    metric = CodeEval(workers=1, limits=SandboxLimits(cpu_seconds=1))

    scores, outcomes = metric.compute(["assert x == 1"] * 2, [["x = 1", "x = 2"], ["x = 1"]], k=[1, 2])

    assert scores == {"pass@1": 0.75}
    assert [[outcome.reason for outcome in group] for group in outcomes] == [["passed", "assertion"], ["passed"]]


@pytest.mark.parametrize(("samples", "passed", "k"), [(5, 0, 3), (5, 2, 1), (5, 2, 3), (6, 4, 3), (4, 4, 4), (7, 1, 7)])
def test_pass_at_k_equals_the_share_of_all_draws(samples, passed, k):
    outcomes = [True] * passed + [False] * (samples - passed)
    draws = list(itertools.combinations(outcomes, k))

    assert pass_at_k(samples, passed, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


def test_pass_at_k_is_unbiased():
    """Averaged over samples of a program that passes with chance p it is 1 - (1 - p)^k, which the share of
    1 - (1 - passed / samples)^k is not. Tolerance: 4 standard errors of 20,000 draws."""
    drawing, p, samples, k, draws = random.Random(0), 0.3, 6, 4, 20_000
    counts = [sum(drawing.random() < p for _ in range(samples)) for _ in range(draws)]
    truth = 1 - (1 - p) ** k
    estimates = [pass_at_k(samples, count, k) for count in counts]
    naive = [1 - (1 - count / samples) ** k for count in counts]
    tolerance = 4 * math.sqrt(truth * (1 - truth) / draws)

    assert abs(sum(estimates) / draws - truth) < tolerance < abs(sum(naive) / draws - truth)


@pytest.mark.parametrize("arguments", [(3, 1, 4), (3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_pass_at_k_that_is_not_defined(arguments):
    with pytest.raises(ValueError, match="is not defined"):
        pass_at_k(*arguments)


@pytest.fixture
def open_tasks(tmp_path, monkeypatch):
    """Opens tasks on the items above, through our own runner."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "humaneval.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))

    def run(name):
        catalog = TaskCatalog([name], tmp_path / "none", None, LocalData(tmp_path))
        catalog.find()
        runner = TaskRunner(catalog)
        runner.load()
        return runner

    return run


def test_scratch_evaluate_scores_humaneval_in_the_sandbox(open_tasks, tokenizer, tiny_model, monkeypatch):
    """The answers are shortened to the context of each model."""
    tasks, asked = open_tasks("humaneval"), []
    for context in (256, 512, 4096):  # all models are looked at before the first is scored
        tasks.check_lengths(context, "a model")

    def answer(self, requests, **_):
        asked.extend(request.args[1]["max_gen_toks"] for request in requests)
        return [requests[0].doc["canonical_solution"], CHEATS[0]]

    monkeypatch.setattr(HFLM, "generate_until", answer)
    scores = tasks.score(tiny_model(), tokenizer, 4, 256)

    assert scores.figures[MetricKey("tasks", "humaneval", "pass@1 (create_test)")].value == 0.5
    assert [outcome.scores["pass@1 (create_test)"] for outcome in scores.outcomes] == [1.0, 0.0]
    tasks.score(tiny_model(context=4096), tokenizer, 4, 4096)
    tasks.score(tiny_model(context=512), tokenizer, 4, 512)
    assert asked == [128, 128, 1024, 1024, 256, 256]


def test_humaneval_64_gives_pass_at_2_to_64(open_tasks, tokenizer, tiny_model, monkeypatch):
    """As docs/evaluation.md says; half of the answers to the first item pass, none to the second."""

    def answer(self, requests, **_):
        assert all(request.args[1]["do_sample"] for request in requests)
        documents = [request.doc for request in requests]
        right = [document["task_id"] == "Made/0" and place % 2 for place, document in enumerate(documents)]
        return [
            document["canonical_solution"] if passes else "    return 0\n" for document, passes in zip(documents, right)
        ]

    monkeypatch.setattr(HFLM, "generate_until", answer)
    scores = open_tasks("humaneval_64").score(tiny_model(), tokenizer, 4, 256)
    figures = {key.metric: figure for key, figure in scores.figures.items()}
    assert list(figures) == [f"pass@{k} (create_test)" for k in (2, 8, 16, 32, 64)]
    for k, figure in zip((2, 8, 16, 32, 64), figures.values()):
        assert figure.value == pytest.approx(pass_at_k(64, 32, k) / 2) and figure.unit == "share" and figure.n == 2
