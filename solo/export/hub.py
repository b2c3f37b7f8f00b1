"""Backbones on the Hugging Face hub: a repository is a folder that `export` wrote.

It is in timm's form where timm knows the network, so that timm and transformers read the same repository.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solo.errors import UserError, reason
from solo.export.folder import Bundle
from solo.export.targets import export

if TYPE_CHECKING:
    from typing_extensions import Self

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
        raise UserError(f"hf://{repo} can't be fetched ({reason(error)}); check the name and the network") from error


class OnHub:
    """`save_pretrained`, `push_to_hub` and `from_pretrained`, called as those of `huggingface_hub.ModelHubMixin`.

    No subclass of it: it would fill in a model's fields from a `config.json` that somebody else wrote, and write one
    of its own where timm's and transformers' belongs.
    """

    def bundle(self) -> Bundle:
        """What `solo.export` writes of the model."""
        raise NotImplementedError

    @classmethod
    def load(cls, source: str | Path, **data: Any) -> Self:
        """The same model from a folder, see `solo.load`."""
        raise NotImplementedError

    def save_pretrained(
        self, save_directory: str | Path, *, repo_id: str | None = None, push_to_hub: bool = False, **options: Any
    ) -> str | None:
        """Write the folder that `push_to_hub` uploads, and upload it if that is wanted; `solo.load(FOLDER)` reads it.

        Raises:
            UserError: the folder can't be written; see `push_to_hub`.
        """
        save(self.bundle(), save_directory)
        return self.push_to_hub(repo_id or Path(save_directory).name, **options) if push_to_hub else None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Backbone, label tree and card, written by solo",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        allow_patterns: list[str] | str | None = None,
        ignore_patterns: list[str] | str | None = None,
        delete_patterns: list[str] | str | None = None,
    ) -> str:
        """Upload the backbone, its label tree and its card to the Hugging Face hub, `solo.load("hf://REPO")` reads it.

        Arguments are those of `huggingface_hub.ModelHubMixin.push_to_hub`; the address of the repository
        `NAME/REPOSITORY`, made if it isn't there, is returned.

        Raises:
            UserError: the hub can't be reached, or refuses.
        """
        from huggingface_hub import HfApi

        options: dict[str, Any] = {"commit_message": commit_message, "revision": branch, "create_pr": create_pr}
        options |= {"allow_patterns": allow_patterns, "ignore_patterns": ignore_patterns}
        options = {k: v for k, v in {**options, "delete_patterns": delete_patterns}.items() if v is not None}
        with tempfile.TemporaryDirectory() as folder:
            save(self.bundle(), folder)
            try:
                api = HfApi(token=token)
                api.create_repo(repo_id, private=private, exist_ok=True)
                return str(api.upload_folder(repo_id=repo_id, folder_path=folder, **options))
            except Exception as error:  # whatever the hub and the way there raise
                text = f"{repo_id} can't be written to the hub ({reason(error)}); log in with `hf auth login`"
                raise UserError(text) from error

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **data: Any,
    ) -> Self:
        """`solo.load`; a name alone, `NAME/REPOSITORY`, is a repository of the hub unless there is such a folder.

        Arguments are those of `huggingface_hub.ModelHubMixin.from_pretrained`, `data` those of `solo.load`: `device`,
        `image_size`, ...

        Raises:
            UserError: see `solo.load`.
        """
        name = str(pretrained_model_name_or_path)
        if not Path(name).expanduser().exists() and name.removeprefix("hf://").partition("://")[2] == "":
            options = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
            name = str(fetch(name.removeprefix("hf://"), revision=revision, force_download=force_download, **options))
        return cls.load(name, **data)
