"""Upload an exported directory to the Hub: scratch push runs/quickstart/export YOUR_NAME/MODEL [--private]"""

import argparse
from pathlib import Path

from training.engine.stage import PROVENANCE, written_by
from training.errors import UserError


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="scratch push", description=__doc__)
    parser.add_argument("folder", help="output of `scratch export`")
    parser.add_argument("repo_id", help="where to, such as your-name/your-model; made if it does not exist")
    parser.add_argument("--private", action="store_true", help="only you can see it")
    options = parser.parse_args(arguments)
    if not (Path(options.folder) / "config.json").is_file():
        raise UserError(f"{options.folder}: no model there; `scratch export` writes one")
    if written_by(options.folder) not in (None, "export"):
        raise UserError(
            f"{options.folder} is the output of '{written_by(options.folder)}'; export it first, for its model card"
        )

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.utils import httpx  # whichever version it speaks through

    api = HfApi()
    try:
        url = api.create_repo(options.repo_id, private=options.private, exist_ok=True)
        # The provenance names folders of this machine: it stays here.
        api.upload_folder(repo_id=url.repo_id, folder_path=options.folder, ignore_patterns=[PROVENANCE])
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
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"{options.repo_id}: the upload failed ({reason}); give the same command again") from None
    except (OSError, httpx.TransportError) as error:
        raise UserError(f"the Hub cannot be reached ({error}); check the connection and try again") from None
    print(f"push: wrote {url}")
