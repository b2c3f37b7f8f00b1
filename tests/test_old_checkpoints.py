"""Checkpoints with the parameter names and shapes of solo-learn 1.0.6, written down from its published interface.

Nothing here is read from our own modules: a renamed layer fails the test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torchvision.models import resnet18

from solo.args.parse import parse
from solo.args.schema import LinearCfg
from solo.errors import UserError
from solo.methods import METHODS
from solo.run.source import pretrained_backbone

F, H, D, Q, K, C = 512, 16, 8, 12, 32, 10  # features, proj_hidden, proj_output, pred_hidden, queue, classes
HEADS = {"proj_hidden_dim": H, "proj_output_dim": D}
PREDICTOR = {**HEADS, "pred_hidden_dim": Q}
QUEUE = {"queue": (K, D), "queue_y": (K,), "queue_ptr": (1,)}


def spell(prefix: str, layers: str) -> dict[str, tuple[int, ...]]:
    """`L(in,out)` with bias, `L0` without, `BN(n)`, `BN0(n)` without affine, `R` nothing; places count from 0."""
    names: dict[str, tuple[int, ...]] = {}
    for place, layer in enumerate(layers.split()):
        kind, _, sizes = layer.partition("(")
        size = tuple(int(number) for number in sizes.rstrip(")").split(",")) if sizes else ()
        own: dict[str, tuple[int, ...]] = {}
        if kind in ("L", "L0"):
            own = {"weight": size[::-1]} | ({"bias": size[1:]} if kind == "L" else {})
        elif kind in ("BN", "BN0"):
            own = {"weight": size, "bias": size} if kind == "BN" else {}
            own |= {"running_mean": size, "running_var": size, "num_batches_tracked": ()}
        names |= {f"{prefix}.{place}.{name}": shape for name, shape in own.items()}
    return names


def twice(name: str, layers: str) -> dict[str, tuple[int, ...]]:
    return spell(name, layers) | spell(f"momentum_{name}", layers)


def attention(prefix: str) -> dict[str, tuple[int, ...]]:
    block = {
        "self_attn.in_proj_weight": (3 * D, D),
        "self_attn.in_proj_bias": (3 * D,),
        "self_attn.out_proj.weight": (D, D),
        "self_attn.out_proj.bias": (D,),
        "linear1.weight": (2 * D, D),
        "linear1.bias": (2 * D,),
        "linear2.weight": (D, 2 * D),
        "linear2.bias": (D,),
        "norm1.weight": (D,),
        "norm1.bias": (D,),
        "norm2.weight": (D,),
        "norm2.bias": (D,),
    }
    return {f"{prefix}.layers.{i}.{name}": shape for i in range(3) for name, shape in block.items()}


def dino_head(prefix: str) -> dict[str, tuple[int, ...]]:
    return spell(f"{prefix}.mlp", f"L({F},{H}) GELU L({H},{H}) GELU L({H},{D})") | {
        f"{prefix}.last_layer.weight_g": (6, 1),
        f"{prefix}.last_layer.weight_v": (6, D),
    }


TWO, TWO_PLAIN = f"L({F},{H}) BN({H}) R L({H},{D})", f"L({F},{H}) R L({H},{D})"
THREE = f"L({F},{H}) BN({H}) R L({H},{H}) BN({H}) R L({H},{D})"
SIAM = f"L0({F},{H}) BN({H}) R L0({H},{H}) BN({H}) R L({H},{D}) BN0({D})"
PREDICT, PREDICT0 = f"L({D},{Q}) BN({Q}) R L({Q},{D})", f"L0({D},{Q}) BN({Q}) R L({Q},{D})"
NNCLR_HEAD = f"{THREE} BN({D})"
T = {"temperature": 0.2}
# method -> method_kwargs, names and shapes beside backbone and classifier
NAMES: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "barlow_twins": (HEADS, spell("projector", THREE)),
    "vicreg": (HEADS, spell("projector", THREE)),
    "vibcreg": (
        {**HEADS, "iternorm": False},
        spell("projector", THREE),
    ),
    "simclr": ({**HEADS, **T}, spell("projector", TWO_PLAIN)),
    "supcon": ({**HEADS, **T}, spell("projector", TWO_PLAIN)),
    "byol": (PREDICTOR, twice("projector", TWO) | spell("predictor", PREDICT)),
    "nnbyol": ({**PREDICTOR, "queue_size": K}, twice("projector", TWO) | spell("predictor", PREDICT) | QUEUE),
    "simsiam": (PREDICTOR, spell("projector", SIAM) | spell("predictor", PREDICT0)),
    "nnsiam": ({**PREDICTOR, "queue_size": K}, spell("projector", SIAM) | spell("predictor", PREDICT0) | QUEUE),
    "nnclr": (
        {**PREDICTOR, **T, "queue_size": K},
        spell("projector", NNCLR_HEAD) | spell("predictor", PREDICT) | QUEUE,
    ),
    "mocov2plus": (
        {**HEADS, **T, "queue_size": K},
        twice("projector", TWO_PLAIN) | {"queue": (2, D, K), "queue_ptr": (1,)},
    ),
    "mocov3": (
        {**PREDICTOR, **T},
        twice("projector", f"L0({F},{H}) BN({H}) R L0({H},{D}) BN0({D})")
        | spell("predictor", f"L0({D},{Q}) BN({Q}) R L0({Q},{D})"),
    ),
    "ressl": (
        {**HEADS, "temperature_q": 0.1, "temperature_k": 0.04, "queue_size": K},
        twice("projector", TWO_PLAIN) | {"queue": (K, D), "queue_ptr": (1,)},
    ),
    "swav": (
        {**HEADS, **T, "num_prototypes": 6, "queue_size": K},
        spell("projector", TWO) | {"prototypes.weight_g": (6, 1), "prototypes.weight_v": (6, D), "queue": (2, K, D)},
    ),
    "deepclusterv2": (
        {**HEADS, "num_prototypes": [6, 6]},
        spell("projector", TWO)
        | {"prototypes.0.weight": (6, D), "prototypes.1.weight": (6, D)}
        | {"local_memory_index": (K,), "local_memory_embeddings": (2, K, D)},
    ),
    "dino": (
        {**HEADS, "num_prototypes": 6},
        dino_head("head") | dino_head("momentum_head") | {"dino_loss_func.center": (1, 6)},
    ),
    "wmse": (HEADS, spell("projector", TWO)),
    "all4one": (
        {**PREDICTOR, **T, "queue_size": K},
        twice("projector", NNCLR_HEAD)
        | spell("predictor", PREDICT)
        | spell("predictor2", PREDICT)
        | attention("transformer_encoder")
        | QUEUE
        | {"queue_index": (K,)}
        | {f"pos_enc.{penc}.inv_freq": (3,) for penc in ("penc", "penc.penc")}  # computed here
        | {f"pos_enc.{penc}.cached_penc": (1, 5, D) for penc in ("penc", "penc.penc")},
    ),
}
SLOW = {name for name, (_, names) in NAMES.items() if any(key.startswith("momentum_") for key in names)}


def stem() -> nn.Module:
    """Torchvision's ResNet-18 with the stem for small images."""
    backbone = resnet18()
    backbone.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=2, bias=False)
    backbone.maxpool, backbone.fc = nn.Identity(), nn.Identity()
    return backbone


def old_state(method: str) -> dict[str, Tensor]:
    backbone = stem().state_dict()
    shapes = {"classifier.weight": (C, F), "classifier.bias": (C,), **NAMES[method][1]}
    whole = ("queue_y", "queue_ptr", "queue_index", "local_memory_index", "num_batches_tracked")
    state = {
        name: torch.zeros(shape, dtype=torch.long) if name.endswith(whole) else torch.randn(shape)
        for name, shape in shapes.items()
    }
    for prefix in ("backbone", "momentum_backbone") if method in SLOW else ("backbone",):
        state |= {f"{prefix}.{name}": value for name, value in backbone.items()}
    return state


def old_args(method: str) -> dict[str, Any]:
    """The args.json beside it: a config of solo-learn, parsed there."""
    return {
        "name": f"{method}-cifar10",
        "method": method,
        "backbone": {"name": "resnet18", "kwargs": {}},
        "method_kwargs": NAMES[method][0],
        "momentum": {"base_tau": 0.99, "final_tau": 1.0, "classifier": False},
        "data": {"dataset": "cifar10", "num_classes": C, "num_large_crops": 2, "num_small_crops": 0},
        "optimizer": {"name": "sgd", "batch_size": 8, "lr": 0.1, "classifier_lr": 0.1, "weight_decay": 0},
        "scheduler": {"name": "warmup_cosine"},
        "max_epochs": 3,
        "wandb_run_id": None,
    }


def write(folder: Path, method: str, state: dict[str, Tensor]) -> Path:
    (folder / "args.json").write_text(json.dumps(old_args(method)))
    torch.save({"epoch": 2, "pytorch-lightning_version": "2.1.2", "state_dict": state}, folder / "old.ckpt")
    return folder / "old.ckpt"


@pytest.mark.fault(4, "solo-learn's checkpoint of any method, All4One's `pos_enc.penc.inv_freq` too", "loads strictly")
@pytest.mark.sampled(3)
@pytest.mark.parametrize("method", NAMES)
def test_every_name_and_shape_loads_strictly(method: str, tmp_path: Path) -> None:
    state = old_state(method)
    path = write(tmp_path, method, state)
    model = METHODS[method].load_from_checkpoint(path, cfg=OmegaConf.create(old_args(method)), map_location="cpu")
    loaded = model.state_dict()
    for name, value in state.items():
        assert name.startswith("pos_enc.") or torch.equal(loaded[name], value), name
    assert set(loaded) - set(state) <= {"queue_y"}  # MoCo's labels of the queue are ours
    for name in (next(iter(NAMES[method][1])), "backbone.layer1.0.conv1.weight"):
        with pytest.raises(RuntimeError, match="Missing key"):
            model.load_state_dict({key: value for key, value in state.items() if key != name})


@pytest.mark.parametrize("prefix", ["backbone", "encoder"])
def test_evaluation_takes_the_backbone_from_args_json(prefix: str, tmp_path: Path) -> None:

    state = {name.replace("backbone.", f"{prefix}."): value for name, value in old_state("byol").items()}
    path = write(tmp_path, "byol", state)
    given = {
        "name": "linear",
        "pretrained_feature_extractor": str(path),
        "data": {"dataset": "cifar10", "train_path": ".", "val_path": ".", "num_workers": 0},
        "optimizer": {"name": "sgd", "batch_size": 8, "lr": 0.1, "weight_decay": 0},
        "scheduler": {"name": "none"},
        "max_epochs": 1,
        "devices": [0],
    }
    backbone, _ = pretrained_backbone(parse(given, LinearCfg).config)
    expected = stem()
    weights = {name.removeprefix(f"{prefix}."): value for name, value in state.items() if name.startswith(f"{prefix}.")}
    expected.load_state_dict(weights)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone.eval()(images), expected.eval()(images))
    state.pop(f"{prefix}.conv1.weight")
    write(tmp_path, "byol", state)
    with pytest.raises(UserError, match=r"1 keys missing \(conv1.weight\)"):
        pretrained_backbone(parse(given, LinearCfg).config)
