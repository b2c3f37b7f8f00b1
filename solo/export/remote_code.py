"""`modeling_solo.py`: a network that neither timm nor transformers knows, as code that travels with its weights.

It is the source of the backbone's own file and a class of transformers around it, so that
`AutoModel.from_pretrained(FOLDER, trust_remote_code=True)` needs torch, torchvision, timm and transformers only.
"""

import inspect
from types import ModuleType

from solo.backbones import poolformer, resnet, wide_resnet
from solo.export.folder import Bundle

_SOURCES: dict[str, ModuleType] = {"resnet": resnet, "poolformer": poolformer, "wide_resnet": wide_resnet}

_WRAPPER = '''

# ---- for transformers ----

from transformers import PretrainedConfig, PreTrainedModel  # noqa: E402
from transformers.modeling_outputs import BaseModelOutputWithPooling  # noqa: E402


class SoloConfig(PretrainedConfig):
    """How the backbone was built: `backbone_kwargs`, and for ResNets `channels` and `small_stem`."""

    model_type = "solo"


class SoloModel(PreTrainedModel):
    """Normalised images (B, C, H, W) -> `pooler_output`, the features (B, F)."""

    config_class = SoloConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.backbone = {name}(None, **config.backbone_kwargs){stem}
        self.post_init()

    def _init_weights(self, module):
        """Weights come from the file."""

    def forward(self, pixel_values, return_dict=None, **kwargs):
        features = self.backbone(pixel_values)
        return BaseModelOutputWithPooling(pooler_output=features) if return_dict is not False else (None, features)
'''
_STEM = """
        self.backbone.fc = nn.Identity()
        adapt_stem(self.backbone, "{name}", config.channels, config.small_stem)"""


def remote_code(bundle: Bundle) -> str | None:
    """The file's text; None for backbones that have no file of their own."""
    for prefix, module in _SOURCES.items():
        if bundle.network.name.startswith(prefix) and hasattr(module, bundle.network.name):
            stem = _STEM.format(name=bundle.network.name) if prefix == "resnet" else ""
            return inspect.getsource(module) + _WRAPPER.format(name=bundle.network.name, stem=stem)
    return None


def remote_config(bundle: Bundle) -> dict[str, object]:
    """The `config.json` that lies beside the remote code."""
    kwargs = dict(bundle.network.kwargs)
    if not bundle.network.name.startswith("resnet"):
        kwargs = {"in_chans": bundle.network.channels, **kwargs}
    return {
        "architectures": ["SoloModel"],
        "model_type": "solo",
        "auto_map": {"AutoConfig": "modeling_solo.SoloConfig", "AutoModel": "modeling_solo.SoloModel"},
        "backbone_kwargs": kwargs,
        "channels": bundle.network.channels,
        "small_stem": bundle.network.small_stem,
        "hidden_size": bundle.features_dim,
    }
