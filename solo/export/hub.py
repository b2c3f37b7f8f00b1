"""Backbones on the Hugging Face hub: a repository is a folder that `export` wrote.

It is in timm's form where timm knows the network, so that timm and transformers read the same repository.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from solo.errors import UserError
from solo.export.folder import Bundle
from solo.export.targets import export

_FILES = ("*.json", "*.safetensors", "*.md", "*.py")


def push(bundle: Bundle, repo: str, private: bool | None = None, **options: Any) -> str:
    """Write a folder and upload it; its address is returned.

    Args:
        bundle: what is uploaded.
        repo: `NAME/REPOSITORY`, made if it isn't there.
        private: whether a new repository is.
        options: of `HfApi.upload_folder`.

    Raises:
        UserError: the hub can't be reached, or refuses.
    """
    from huggingface_hub import HfApi

    token = options.pop("token", None)
    with tempfile.TemporaryDirectory() as folder:
        try:
            export(bundle, "hf", folder)
        except UserError:  # a network that only solo knows
            export(bundle, "safetensors", folder)
        try:
            api = HfApi(token=token)
            api.create_repo(repo, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo, folder_path=folder, **options))
        except Exception as error:  # whatever the hub and the way there raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{repo} can't be written to the hub ({reason}); log in with `hf auth login`") from error


def fetch(repo: str) -> Path:
    """The folder of a repository, downloaded once; `NAME/REPOSITORY@REVISION` is another than its main one.

    Only weights, descriptions and cards are fetched, and none of their code is run.

    Raises:
        UserError: it can't be fetched.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = repo.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(_FILES)))
    except Exception as error:  # whatever the hub and the way there raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"hf://{repo} can't be fetched ({reason}); check the name and the network") from error
