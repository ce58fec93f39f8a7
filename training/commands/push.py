"""Upload a model or a corpus to the Hub: scratch push runs/quickstart/export YOUR_NAME/MODEL [--private]

With --dataset the folder is an output of `scratch prepare`: shards, card, picture and samples go; what names folders of
this machine, and the text that was dropped, stay here. An adapter goes as it is: runs/quickstart/dpo/adapter.
"""

import argparse
from pathlib import Path

from training.common.errors import UserError, one_line
from training.common.stage import PROVENANCE, written_by
from training.corpus.output.card import CARD, PUBLISHED
from training.data.shards import check_hashes, read_manifest
from training.tuning.adapters import is_adapter


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="scratch push", description=__doc__)
    parser.add_argument("folder", help="output of `scratch export`, an adapter, or with --dataset of `scratch prepare`")
    parser.add_argument("repo_id", help="where to, such as your-name/your-model; made if it does not exist")
    parser.add_argument("--private", action="store_true", help="only you can see it")
    parser.add_argument("--dataset", action="store_true", help="a corpus, as a dataset repository")
    options = parser.parse_args(arguments)
    if options.dataset:
        check_corpus(options.folder)
        repo_type, patterns = "dataset", {"allow_patterns": PUBLISHED}
    else:
        check_model(options.folder)
        # The provenance names folders of this machine: it stays here.
        repo_type, patterns = "model", {"ignore_patterns": [PROVENANCE]}

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.utils import httpx  # whichever version it speaks through

    api = HfApi()
    try:
        url = api.create_repo(options.repo_id, private=options.private, exist_ok=True, repo_type=repo_type)
        api.upload_folder(repo_id=url.repo_id, folder_path=options.folder, repo_type=repo_type, **patterns)
    except LocalTokenNotFoundError:
        raise UserError("not logged in to the Hub; run `hf auth login` first") from None
    except HFValidationError as error:
        raise UserError(f"'{options.repo_id}' is no name for a repository: {' '.join(str(error).split())}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        login = "run `hf auth login` with a token that may write there"
        hint = {401: login, 403: login, 404: "check the name"}.get(status, "try again later")
        raise UserError(f"the Hub answered {status} for {options.repo_id}; {hint}") from None
    except RuntimeError as error:  # a large file that the Hub's storage did not take
        reason = one_line(error.__cause__ or error)
        raise UserError(f"{options.repo_id}: the upload failed ({reason}); give the same command again") from None
    except (OSError, httpx.TransportError) as error:
        raise UserError(f"the Hub cannot be reached ({error}); check the connection and try again") from None
    print(f"push: wrote {url}")


def check_model(folder: str) -> None:
    """Raises UserError: not a directory to publish, nor an adapter."""
    if written_by(folder) == "prepare":
        raise UserError(f"{folder} is the output of 'prepare', no model; give --dataset to push it as a corpus")
    if is_adapter(folder):
        return
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{folder}: no model there; `scratch export` writes one")
    if written_by(folder) not in (None, "export"):
        raise UserError(f"{folder} is the output of '{written_by(folder)}'; export it first, for its model card")


def check_corpus(folder: str) -> None:
    """Raises UserError: not a prepared folder, or one that is damaged or from before there were cards."""
    if written_by(folder) not in (None, "prepare"):
        raise UserError(f"{folder} is the output of '{written_by(folder)}'; leave out --dataset")
    read_manifest(folder)
    if not (Path(folder) / CARD).is_file():
        raise UserError(f"{folder} has no data card ({CARD}); run `scratch prepare` again, into another folder")
    check_hashes(folder)
