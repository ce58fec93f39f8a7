"""The measure `tasks`: lm-eval's tasks and suites, and task files of a folder.

The task files are written beside the results with absolute paths of their data, so that the stock program repeats the
figures from any folder:

    lm_eval --model hf --model_args pretrained=DIR,trust_remote_code=True --include_path OUTPUT/tasks --tasks NAME
"""

import importlib.util
from pathlib import Path

from training.common.errors import UserError
from training.common.packages import how_to_install
from training.corpus.output.card import shown_path
from training.eval.harness.catalog import TaskCatalog
from training.eval.harness.local_data import LocalData, rewrite_data_paths
from training.eval.harness.runner import DEFAULT_SEED, TaskRunner, TaskSettings
from training.eval.measures.figures import MeasureResult
from training.eval.measures.measure import Candidate, LoadedModel, Measure


class Tasks(Measure):
    """The tasks, groups and suites of `tasks`, scored by lm-eval."""

    kind = "tasks"

    def prepare(self) -> None:
        if importlib.util.find_spec("lm_eval") is None:
            raise UserError(f"'tasks': lm-eval is not installed; {how_to_install('lm_eval')}, or leave 'tasks' out")
        config = self.config
        local = LocalData(Path(config.data_dir)) if config.data_dir else None
        data = Path(config.data) if config.data else None
        self.catalog = TaskCatalog(config.tasks, Path(config.tasks_dir), data, local, config.num_fewshot)
        self.catalog.find()
        seeds = tuple(config.fewshot_seeds) or (DEFAULT_SEED,)
        self.runner = TaskRunner(self.catalog, TaskSettings(config.apply_chat_template, config.limits.tasks, seeds))

    def inputs(self) -> dict[str, str]:
        files = {f"tasks.{name}": str(path) for name, path in self.catalog.own.items()}
        used = sorted(self.catalog.local.used) if self.catalog.local else []
        return files | {str(path): str(path) for path in used}

    def conditions(self) -> dict[str, str]:
        config = self.config
        shots = "each task's own number" if config.num_fewshot is None else config.num_fewshot
        template = "applied" if config.apply_chat_template else "not applied"
        items = "all items" if config.limits.tasks is None else f"the first {config.limits.tasks} items of each"
        found = {"tasks": f"lm-eval; few-shot examples: {shots}; chat template: {template}; {items}"}
        return found | ({"data_dir": shown_path(config.data_dir)} if config.data_dir else {})

    def remarks(self) -> list[str]:
        return [
            f"{name}: {count} of its tasks have data; do not compare this score with published ones"
            for name, count in self.catalog.partial_groups().items()
        ]

    def load(self, candidates: list[Candidate]) -> None:
        self.runner.load()
        for candidate in candidates:
            self.runner.check_lengths(candidate.context, candidate.key)

    def write(self, folder: Path, final: Path) -> None:
        self.catalog.write(folder / "tasks")
        rewrite_data_paths(folder / "tasks", final / "tasks")

    def run(self, model: LoadedModel) -> MeasureResult:
        return self.runner.score(model.model, model.tokenizer, model.batch_size, model.context)
