"""A trained backbone as an encoder for mteb, whose image tasks then measure it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from solo.errors import UserError

if TYPE_CHECKING:
    from solo.run.pretrained import PretrainedModel


def mteb_encoder(model: PretrainedModel, name: str = "solo/backbone") -> Any:
    """What `mteb.evaluate(mteb_encoder(model), tasks)` takes as a model.

    Args:
        model: of `solo.load`.
        name: `OWNER/NAME`, by which mteb files its results.

    Returns:
        An `mteb` encoder of images; features (N, F) float32 are those of `model.embed`, compared by cosine.

    Raises:
        UserError: mteb isn't installed, or a task has texts.
    """
    try:
        from mteb.models.abs_encoder import AbsEncoder
        from mteb.models.model_meta import ModelMeta, ScoringFunction
    except ImportError as error:
        raise UserError("mteb can't be imported: `pip install mteb` (2.0 or newer)") from error

    class ImageEncoder(AbsEncoder):  # type: ignore[misc]
        mteb_model_meta = ModelMeta.create_empty(
            {
                "name": name,
                "framework": ["PyTorch"],
                "modalities": ["image"],
                "embed_dim": model.features_dim,
                "similarity_fn_name": ScoringFunction.COSINE,
            }
        )

        def encode(self, inputs: Any, *, task_metadata: Any, **options: Any) -> Any:
            if "image" not in inputs.dataset.column_names:
                raise UserError(f"{task_metadata.name} has inputs without images; a backbone embeds images only")
            images = (image for batch in inputs for image in batch["image"])
            return model.embed(images, batch_size=options.get("batch_size", 256)).numpy()

    return ImageEncoder()
