"""A loaded model to and from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from solo.export.folder import Bundle
from solo.export.hub import fetch, push, save

if TYPE_CHECKING:
    from typing_extensions import Self


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
        patterns = {"allow_patterns": allow_patterns, "ignore_patterns": ignore_patterns}
        patterns |= {"delete_patterns": delete_patterns}
        where = {"commit_message": commit_message, "revision": branch, "create_pr": create_pr}
        return push(self.bundle(), repo_id, private, token, {**where, **patterns})

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
