"""Upload a model or a corpus to the Hub.

    scratch push runs/quickstart/export YOUR_NAME/MODEL [--private]
    scratch push runs/mine/data YOUR_NAME/CORPUS --dataset

With --dataset the folder is an output of `scratch prepare`: its shards, data card, plot and samples are uploaded.
Dropped text and files that contain local paths are not. An adapter folder, such as runs/mine/sft/adapter, is uploaded
without an export if its base is a model on the Hub, and so is any model folder that has a model card (README.md). The
checkpoints and the state of a Trainer are left out.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from training.common.errors import UserError, one_line
from training.common.hub_names import is_hub_name
from training.common.json_files import read_json
from training.model_io.model_kinds import ADAPTER_CONFIG, MODEL_STAGES, describe_adapter, is_adapter, model_kind
from training.stages.flags import parse
from training.stages.provenance import PROVENANCE, RECIPE, written_by
from training.stages.recipe import PathText, option, positional

CARD = "README.md"
# The first two name folders of this machine. The others are the state of transformers' Trainer, most of it pickled.
LEFT_OUT = [PROVENANCE, RECIPE, "checkpoint-*/*", "runs/*", "training_args.bin", "trainer_state.json"]
LEFT_OUT += ["optimizer.*", "scheduler.pt", "scaler.pt", "rng_state*.pth"]


@dataclass
class PushConfig:
    """Options of `scratch push`."""

    folder: PathText = positional("output of `scratch export`, an adapter, or with --dataset of `scratch prepare`")
    repo_id: str = positional("repository to upload to, such as your-name/your-model; created if it does not exist")
    private: bool = option(False, "create a private repository")
    dataset: bool = option(False, "upload a corpus, as a dataset repository")


def main(arguments: list[str]) -> None:
    """Check the folder, create the repository, upload.

    Raises:
        UserError: nothing to publish there, not logged in, or the upload failed.
    """
    config = parse(PushConfig, arguments, __doc__, recipe=False)
    if config.dataset:
        from training.corpus.output.card import PUBLISHED

        check_corpus(config.folder)
        upload(config, "dataset", allow_patterns=list(PUBLISHED))
    else:
        check_model(config.folder)
        upload(config, "model", ignore_patterns=LEFT_OUT)


def upload(config: PushConfig, repo_type: str, **patterns: list[str]) -> None:
    """Create the repository if need be, and upload the folder.

    Args:
        repo_type: `model` or `dataset`.
        patterns: `allow_patterns` or `ignore_patterns` of file names.

    Raises:
        UserError: not logged in, no such name, no connection, or the Hub rejected it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.utils import httpx  # the version that huggingface_hub uses

    name, api = config.repo_id, HfApi()
    try:
        url = api.create_repo(name, private=config.private, exist_ok=True, repo_type=repo_type)
        api.upload_folder(repo_id=url.repo_id, folder_path=config.folder, repo_type=repo_type, **patterns)
    except LocalTokenNotFoundError:
        raise UserError("not logged in to the Hub; run `hf auth login` first") from None
    except HFValidationError as error:
        raise UserError(f"'{name}' is not a valid repository name: {one_line(error)}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        login = "run `hf auth login` with a token that has write access"
        hint = {401: login, 403: login, 404: "check the name"}.get(status, "try again later")
        if status == 400:
            hint = one_line(error)
        raise UserError(f"the Hub answered {status} for {name}; {hint}") from None
    except ValueError as error:  # raised for the metadata of the card
        remedy = "correct it, or write another card with `scratch export`"
        if is_adapter(config.folder):
            remedy = f"name the published base there as base_model and in {ADAPTER_CONFIG}, or merge the adapter"
        raise UserError(f"the Hub rejects {Path(config.folder) / CARD} ({one_line(error)}); {remedy}") from None
    except RuntimeError as error:  # a large file that the Hub's storage rejected
        reason = one_line(error.__cause__ or error)
        raise UserError(f"{name}: the upload failed ({reason}); run the same command again") from None
    except (OSError, httpx.TransportError) as error:
        raise UserError(f"the Hub cannot be reached ({error}); check the connection and try again") from None
    print(f"push: wrote {url}")


def check_model(folder: str) -> None:
    """Reject a folder that is neither a model with its card nor an adapter of a model on the Hub. Raises UserError."""
    if written_by(folder) == "prepare":
        raise UserError(f"{folder} is the output of 'prepare', not a model; add --dataset to push it as a corpus")
    if is_adapter(folder):
        check_base(folder)
        return
    if not list(Path(folder).glob("*.gguf")):
        model_kind(folder, *MODEL_STAGES, key="folder")
    if written_by(folder) not in (None, "export") or not (Path(folder) / CARD).is_file():
        export = shlex.join(["scratch", "export", "--model", folder, "--output_dir", f"{folder.rstrip('/')}-export"])
        raise UserError(f"{folder} has no model card; write a folder to publish with `{export}`, and push that")


def check_base(folder: str) -> None:
    """Reject an adapter whose base is not on the Hub: its files name a folder of this machine. Raises UserError."""
    file = Path(folder) / ADAPTER_CONFIG
    try:
        base = read_json(file, {"base_model_name_or_path": (str, type(None))})["base_model_name_or_path"]
    except ValueError:
        raise UserError(f"{file} is damaged; download or train the adapter again") from None
    if not is_hub_name(base or ""):
        raise UserError(
            f"{describe_adapter(folder)}, and push that; or publish the base, and put its name on the Hub in place of "
            f"'{base}' in {file} and {Path(folder) / CARD}"
        )


def check_corpus(folder: str) -> None:
    """Reject a folder that is not a prepared corpus, is damaged, or has no data card. Raises UserError."""
    from training.corpus.output.card import CARD
    from training.data.shards import check_hashes, read_manifest

    if written_by(folder) not in (None, "prepare"):
        raise UserError(f"{folder} is the output of '{written_by(folder)}', not a corpus; leave out --dataset")
    read_manifest(folder)
    if not (Path(folder) / CARD).is_file():
        raise UserError(f"{folder} has no data card ({CARD}); run `scratch prepare` again")
    check_hashes(folder)
