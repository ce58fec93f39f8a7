"""Draw what the attention heads of a model do, how they formed during training, and which of them matter.

    scratch attention RUN [--head 1.3] [--text "a sentence"] [--output_dir FOLDER]
    scratch attention RUN --without 1.3
    scratch attention RUN --without all

RUN is the output folder of `scratch pretrain`, finished or not, or of a whole run. Without a record of its attention
(`insight` in its recipe), its checkpoints are recorded. RUN may also be the folder of any causal language model, or its
name on the Hub, of which one moment is recorded. The run's own files stay as they are.

Written are an interactive page (attention.html), the four strips of a phase change, an animation of one head with a
strip of its frames, and two pages that explain Q, K and V with numbers of the model. With --without, heads are knocked
out, and the table and picture say how much worse the model becomes. A head is named LAYER.HEAD, both from 0.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.common.errors import UserError, writing_to
from training.common.files import open_folder, write_whole
from training.common.hub_names import is_hub_name
from training.common.tables import Row, as_text
from training.stages.flags import parse
from training.stages.help import command_line
from training.stages.provenance import read_provenance, staging_dir, written_by
from training.stages.recipe import PathText, option, positional

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from training.insight.ablation import Ablations
    from training.insight.heads import Head
    from training.insight.record import Record

TEXT = "the cat sat on the mat, and the cat"  # explained where there is no other
SEQUENCES = 16  # on which an ablation is measured, of each kind
EXPLAINED = 12  # tokens of a held-out text
_SHOWN = 20  # heads in the table of the terminal


@dataclass
class AttentionConfig:
    """Options of `scratch attention`."""

    run: PathText = positional("folder of a run or of a model, or a name on the Hub")
    output_dir: PathText | None = option(None, "folder for the pictures (default: RUN-attention)")
    head: str | None = option(
        None, "head to animate and explain, such as 1.3 (default: highest induction or previous-token score)"
    )
    text: str | None = option(None, "text to explain (default: the beginning of a held-out text)")
    tokens: int = option(64, "tokens of each sequence that is drawn, where the run has no record", at_least=8)
    without: list[str] = option(list, "heads to knock out together, such as 1.3; all: each by itself", several=True)


@dataclass(frozen=True)
class Source:
    """What RUN holds.

    Attributes:
        folder: the output of pretraining, or the folder or name of a model.
        record: the record of its attention, or None.
        checkpoints: the number of checkpoints.
        model: folder or name of the newest weights, or None.
        recipe: of pretraining; empty for another model.
    """

    folder: str
    record: Path | None
    checkpoints: int
    model: str | None
    recipe: dict[str, Any]


def main(arguments: list[str]) -> None:
    """Draw the pictures of a run, or knock heads out.

    Raises:
        UserError: nothing to draw there, a head that does not exist, a text that is too long, attention that cannot be
            recorded, or a folder that holds the output of a stage.
    """
    config = parse(AttentionConfig, arguments, __doc__, recipe=False)
    source = find_source(config.run)
    folder = Path(config.output_dir or f"{Path(config.run).name if is_hub_name(config.run) else config.run}-attention")
    if stage := written_by(folder):
        raise UserError(f"'output_dir': {folder} holds the output of '{stage}'; choose another folder")
    with writing_to(folder), open_folder(folder) as work:
        lines = knock_out(config, source, work) if config.without else draw(config, source, work)
        names = sorted(path.name for path in work.iterdir())
    for line in lines:
        print(line)
    print(f"attention: wrote {', '.join(names)} in {folder}")
    if not config.without:
        print(f"next: open {folder / 'attention.html'} in a browser, or {command_line('attention', config.run)} --without all")
