"""Backbones on the Hugging Face hub: a repository is a folder that `export` wrote.

It is in timm's form where timm knows the network, so that timm and transformers read the same repository.
"""

import tempfile
from pathlib import Path
from typing import Any

from solo.errors import UserError
from solo.export.folder import Bundle
from solo.export.targets import export

_FILES = ("*.json", "*.safetensors", "*.md", "*.py")


def save(bundle: Bundle, folder: str | Path) -> None:
    """Write what a repository holds: the form that transformers reads, or that of solo where it knows no such network.

    Raises:
        UserError: the folder can't be written.
    """
    try:
        export(bundle, "hf", folder)
    except UserError:  # a network that only solo knows
        export(bundle, "safetensors", folder)


def push(bundle: Bundle, repo: str, private: bool | None, token: str | None, options: dict[str, Any]) -> str:
    """Upload what `save` writes to `NAME/REPOSITORY`, made if it isn't there; its address is returned.

    `options` are those of `HfApi.upload_folder`, without those that are None; no `token` is that of who is logged in.

    Raises:
        UserError: the hub can't be reached, or refuses.
    """
    from huggingface_hub import HfApi

    options = {key: value for key, value in options.items() if value is not None}
    with tempfile.TemporaryDirectory() as folder:
        save(bundle, folder)
        try:
            api = HfApi(token=token)
            api.create_repo(repo, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo, folder_path=folder, **options))
        except Exception as error:  # whatever the hub and the way there raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{repo} can't be written to the hub ({reason}); log in with `hf auth login`") from error


def fetch(repo: str, **options: Any) -> Path:
    """The folder of a repository, downloaded once; `NAME/REPOSITORY@REVISION` is another than its main one.

    Only weights, descriptions and cards are fetched, and none of their code is run; `options` are those of
    `huggingface_hub.snapshot_download`.

    Raises:
        UserError: it can't be fetched.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = repo.partition("@")
    options["revision"] = options.get("revision") or revision or None
    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES), **options))
    except Exception as error:  # whatever the hub and the way there raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"hf://{repo} can't be fetched ({reason}); check the name and the network") from error
