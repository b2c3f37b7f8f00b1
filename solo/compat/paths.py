"""Import paths of solo-learn 1.0.6 and of the HEX release, and the names that their modules had beside ours.

`import solo` puts a finder into `sys.meta_path`, which knows the paths in `MODULES` and adds the names in `NAMES` to
our own modules. Nothing is imported before somebody asks for it, so this costs a look into two tables.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Moved:
    """What an old module means."""

    home: str  # the module whose names it has
    # names that are called otherwise there, `name` or `module:name`
    renamed: dict[str, str] = field(default_factory=dict)
    # the file of a backbone's constructors as they are without solo-learn's first argument, the name of the method: it
    # is always this one; `""` leaves the constructors as they are
    method: str | None = ""
    gone: str | None = None  # why there is nothing like it, and what to use instead

    def get(self, name: str) -> Any:
        """The object of that name."""
        home, _, here = self.renamed.get(name, name).rpartition(":")
        found = getattr(importlib.import_module(home or self.home), here)
        constructor = self.method != "" and callable(found) and not isinstance(found, type) and name[0] != "_"
        return partial(found, self.method) if constructor else found


_VIT = {
    "MaskedAutoencoderViT": "solo.backbones.from_timm:MaskedViT",
    "VisionTransformerMoCo": "solo.backbones.from_timm:SinCosViT",
}
_SINCOS = ("1d_sincos_pos_embed_from_grid", "2d_sincos_pos_embed", "2d_sincos_pos_embed_from_grid")
_MISC = {f"generate_{name}": f"solo.nn.vit:generate_{name}" for name in _SINCOS}
_MISC |= {
    "get_rank": "solo.distributed:rank",
    "param_groups_layer_decay": "timm.optim:param_groups_layer_decay",
    "remove_bias_and_norm_from_weight_decay": "solo.optim:remove_bias_and_norm_from_weight_decay",
    "trunc_normal_": "torch.nn.init:trunc_normal_",
}

MODULES: dict[str, Moved | None] = {  # None: a package without names of its own
    "solo.args.pretrain": Moved("solo.compat.args", {"parse_cfg": "parse_pretrain"}),
    "solo.args.linear": Moved("solo.compat.args", {"parse_cfg": "parse_linear"}),
    "solo.args.dataset": Moved("solo.compat.args"),
    "solo.args.knn": Moved("solo.compat.args"),
    "solo.args.umap": Moved("solo.compat.args"),
    "solo.args.outside": Moved("solo.args.config"),  # of 0.2
    "solo.backbones.convnext": Moved("solo.backbones"),
    "solo.backbones.convnext.convnext": Moved("solo.backbones", method=None),
    "solo.backbones.swin": Moved("solo.backbones"),
    "solo.backbones.swin.swin": Moved("solo.backbones", method=None),
    "solo.backbones.resnet.resnet": Moved("torchvision.models"),
    "solo.backbones.vit": Moved("solo.backbones"),
    "solo.backbones.vit.vit": Moved("solo.backbones", method=None),
    "solo.backbones.vit.vit_mae": Moved("solo.backbones", _VIT, method="mae"),
    "solo.backbones.vit.vit_mocov3": Moved("solo.backbones", _VIT, method="mocov3"),
    "solo.backbones.poolformer.poolformer": Moved("solo.backbones.poolformer", method=None),
    "solo.backbones.wide_resnet": Moved("solo.backbones.resnet"),
    "solo.backbones.wide_resnet.wide_resnet": Moved("solo.backbones.resnet", method=None),
    "solo.data.dali_dataloader": Moved(
        "",
        gone="solo reads images without NVIDIA DALI; use solo.data.pretrain_dataloader and "
        "solo.data.classification_dataloader (data.format=dali in a YAML runs on these)",
    ),
    "solo.data.h5_dataset": Moved("solo.data.sources.images"),
    "solo.eval.feature_file": Moved("solo.eval.features"),
    "solo.eval.tree": Moved("solo.eval.classes"),
    "solo.utils": None,
    "solo.utils.auto_resumer": Moved("solo.callbacks.run_directory"),
    "solo.utils.auto_umap": Moved("solo.callbacks.optional"),
    "solo.utils.checkpointer": Moved("solo.callbacks.checkpointer"),
    "solo.utils.kmeans": Moved("solo.nn.memory"),
    "solo.utils.knn": Moved("solo.eval.knn"),
    "solo.utils.lars": Moved("solo.optim"),
    "solo.utils.lr_scheduler": Moved("solo.optim"),
    "solo.utils.metrics": Moved("solo.eval.predictions"),
    "solo.utils.misc": Moved("solo.compat.misc", _MISC),
    "solo.utils.momentum": Moved("solo.nn.networks"),
    "solo.utils.positional_encodings": Moved("solo.nn.vit"),
    "solo.utils.sinkhorn_knopp": Moved("solo.nn.memory"),
    "solo.utils.whitening": Moved("solo.nn.networks", {"iterative_normalization_py": "iterative_normalization_py"}),
}

# file -> methods, and losses, that had one each
_MERGED = {
    "methods.agreement": "barlow_twins byol frossl lejepa nnbyol nnsiam simsiam vibcreg vicreg wmse",
    "methods.classifiers": "crossentropy guided tree_heads",
    "methods.contrastive": "all4one hierarchical mocov2plus mocov3 nnclr ressl siglip simclr supcon",
    "methods.masked": "ijepa mae",
    "methods.prototypes": "deepclusterv2 dino dinov2 swav",
    "losses": "mocov2plus mocov3 nnclr simclr",
    "losses.targets": "barlow byol deepclusterv2 dino mae ressl simsiam swav vicreg views wmse",
}
for _home, _old in _MERGED.items():
    MODULES |= {f"solo.{_home.split('.')[0]}.{name}": Moved(f"solo.{_home}") for name in _old.split()}
MODULES["solo.losses.vibcreg"] = Moved("solo.losses.targets", {"covariance_loss": "correlation_loss"})

_HEX = Moved("solo.compat.hex_losses")
# our module -> names that it has beside its own
NAMES: dict[str, dict[str, Moved]] = {
    "solo.losses": {"simclr_loss_func_": _HEX, "nnclr_loss_func_": _HEX},
    "solo.methods.base": {"BaseMomentumMethod": Moved("solo.methods.momentum"), "static_lr": Moved("solo.optim")},
}
# Packages whose files solo-learn imports all together.
_PACKAGES = ("solo.args", "solo.backbones", "solo.data", "solo.losses", "solo.methods")


def install() -> None:
    """Let the import system know the tables; twice is once."""
    if not any(isinstance(finder, OldPaths) for finder in sys.meta_path):
        sys.meta_path.insert(0, OldPaths())


class OldPaths(MetaPathFinder, Loader):
    """Finds the modules of `MODULES`, and adds the names in `NAMES` to our own ones."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What is known of a module, if a table has it."""
        if fullname in MODULES:
            return ModuleSpec(fullname, self, is_package=_is_package(fullname))
        if not (fullname in NAMES or fullname in _PACKAGES or _is_package(fullname)):
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = partial(_with_old_names, execute)  # type: ignore[method-assign]
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its names, each looked up when somebody asks; an `ImportError` if it is gone."""
        moved = MODULES[module.__name__]
        if moved is not None and moved.gone:
            raise ImportError(moved.gone)
        module.__doc__ = f"solo-learn's import path of `{moved.home}`." if moved else None
        _add(module, {} if moved is None else {"": moved})
        if moved is not None:
            module.__dir__ = partial(_names, moved)  # type: ignore[method-assign]


def _with_old_names(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    execute(module)
    _add(module, NAMES.get(module.__name__, {}))
    if _is_package(module.__name__) and not hasattr(module, "__path__"):
        module.__path__ = []  # a file of ours that was a package


def _is_package(name: str) -> bool:
    return any(old.startswith(f"{name}.") for old in MODULES)


def _names(moved: Moved) -> list[str]:
    home = importlib.import_module(moved.home)
    return sorted({*getattr(home, "__all__", dir(home)), *moved.renamed} - {n for n in dir(home) if n[0] == "_"})


def _add(module: ModuleType, names: dict[str, Moved]) -> None:
    """Let a module look for what it doesn't have: in its own `__getattr__`, in `names`, in its files."""
    own = module.__dict__.get("__getattr__")

    def find(name: str) -> Any:
        path = f"{module.__name__}.{name}"
        if name == "__all__" and "" in names:
            return _names(names[""])
        if not name.startswith("__"):  # those of the import system
            if path in MODULES or (hasattr(module, "__path__") and importlib.util.find_spec(path)):
                return importlib.import_module(path)
            for start, moved in names.items():
                if name.startswith(start):
                    return moved.get(name)
        if own is not None:
            return own(name)
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    module.__getattr__ = find  # type: ignore[method-assign]
