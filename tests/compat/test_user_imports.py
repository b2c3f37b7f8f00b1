"""Import paths, configs, losses and helpers as other repositories use them; see `test_user_code`."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

IMPORTS = """
solo.args.dataset: dataset_args augmentations_args linear_augmentations_args custom_dataset_args
solo.args.knn: parse_args_knn
solo.args.umap: parse_args_umap
solo.args.pretrain: parse_cfg add_and_assert_dataset_cfg add_and_assert_wandb_cfg add_and_assert_lightning_cfg
solo.args.pretrain: _N_CLASSES_PER_DATASET _SUPPORTED_DATASETS
solo.args.linear: parse_cfg add_and_assert_dataset_cfg _N_CLASSES_PER_DATASET
solo.args: dataset knn linear pretrain
solo: args backbones data losses methods utils
solo.utils: auto_resumer auto_umap checkpointer kmeans knn lars lr_scheduler metrics misc momentum positional_encodings
solo.utils: sinkhorn_knopp whitening
solo.utils.auto_resumer: AutoResumer
solo.utils.auto_umap: AutoUMAP OfflineUMAP
solo.utils.checkpointer: Checkpointer
solo.utils.kmeans: KMeans
solo.utils.knn: WeightedKNNClassifier
solo.utils.lars: LARS
solo.utils.lr_scheduler: LinearWarmupCosineAnnealingLR
solo.utils.metrics: accuracy_at_k weighted_mean
solo.utils.misc: gather GatherLayer get_rank concat_all_gather_no_grad filter_inf_n_nan FilterInfNNan omegaconf_select
solo.utils.misc: make_contiguous compute_dataset_size trunc_normal_ param_groups_layer_decay
solo.utils.misc: remove_bias_and_norm_from_weight_decay generate_2d_sincos_pos_embed
solo.utils.misc: generate_2d_sincos_pos_embed_from_grid generate_1d_sincos_pos_embed_from_grid
solo.utils.momentum: MomentumUpdater initialize_momentum_params
solo.utils.positional_encodings: PositionalEncoding1D PositionalEncodingPermute1D PositionalEncoding2D
solo.utils.positional_encodings: PositionalEncodingPermute3D Summer
solo.utils.sinkhorn_knopp: SinkhornKnopp
solo.utils.whitening: Whitening2d IterNorm
solo.backbones: resnet18 resnet50 vit_tiny swin_tiny poolformer_s12 convnext_tiny wide_resnet28w2
solo.backbones.resnet: resnet18 resnet50
solo.backbones.resnet.resnet: resnet18 resnet50
solo.backbones.convnext: convnext_tiny convnext_small convnext_base convnext_large
solo.backbones.convnext.convnext: convnext_tiny
solo.backbones.swin: swin_tiny swin_small swin_base swin_large
solo.backbones.swin.swin: swin_tiny
solo.backbones.vit: vit_tiny vit_small vit_base vit_large
solo.backbones.vit.vit: vit_tiny vit_small vit_base vit_large
solo.backbones.vit.vit_mae: MaskedAutoencoderViT vit_tiny vit_small vit_base vit_large
solo.backbones.vit.vit_mocov3: VisionTransformerMoCo vit_tiny vit_small vit_base vit_large
solo.backbones.poolformer: poolformer_s12 poolformer_m48
solo.backbones.poolformer.poolformer: poolformer_s12 PoolFormer
solo.backbones.wide_resnet: wide_resnet28w2 wide_resnet28w8
solo.backbones.wide_resnet.wide_resnet: wide_resnet28w2 WideResNet
solo.data: classification_dataloader pretrain_dataloader h5_dataset
solo.data.h5_dataset: H5Dataset
solo.losses: barlow_loss_func byol_loss_func deepclusterv2_loss_func DINOLoss mae_loss_func mocov2plus_loss_func
solo.losses: simclr_loss_func_hex_fixed nnclr_loss_func_superclass
solo.losses.simclr: simclr_loss_func simclr_loss_func_hex_fixed simclr_loss_func_hex_adaptive
solo.losses.simclr: simclr_loss_func_superclass
solo.losses.nnclr: nnclr_loss_func nnclr_loss_func_hard_decompose nnclr_loss_func_decompose_adaptive
solo.losses.nnclr: nnclr_loss_func_superclass
solo.losses.mae: mae_loss_func patchify
solo.losses.vicreg: vicreg_loss_func invariance_loss variance_loss covariance_loss
solo.losses.vibcreg: vibcreg_loss_func covariance_loss
solo.methods: METHODS BaseMethod LinearModel SimCLR BYOL All4One MAE
solo.methods.base: BaseMethod BaseMomentumMethod static_lr
solo.methods.dino: DINO DINOHead
solo.methods.mae: MAE MAEDecoder
solo.methods.linear: LinearModel
"""


@pytest.mark.fault(7, "import paths, also deep ones", "found by one table")
@pytest.mark.parametrize("line", IMPORTS.split("\n")[1:-1])
def test_names(line):
    path, names = line.split(": ")
    module = importlib.import_module(path)
    for name in names.split():
        exec(f"from {path} import {name}")
        assert getattr(module, name) is not None


FRESH = {
    "no torch before it is asked for": "import sys, solo, solo.args.pretrain; assert 'torch' not in sys.modules",
    "attributes of the package": "import solo; solo.utils.misc.gather; solo.methods.simclr.SimCLR; solo.losses.byol",
    "deep attributes": "import solo; solo.backbones.vit.vit_mae.vit_base; solo.args.pretrain.parse_cfg; solo.data",
    "a star": "from solo.utils.misc import *; from solo.backbones.vit.vit_mae import *; gather, vit_base",
    "a module, renamed": "import solo.utils.misc as m, solo.backbones.resnet.resnet as r; m.gather, r.resnet18",
    "a patched helper": "import solo.utils.misc as m; m.mine = 3; from solo.utils import misc; assert misc.mine == 3",
    "what there never was": """
import solo
for path in ("solo.nothing", "solo.utils.nothing", "solo.backbones.vit.nothing", "solo.losses.simclr.nothing"):
    try: __import__(path)
    except ModuleNotFoundError: continue
    raise SystemExit(path)
for name in ("solo.utils", "solo.losses.simclr"):
    assert not hasattr(__import__(name, fromlist=["x"]), "nothing")""",
    "main_knn": """
import torch
from main_knn import extract_features, run_knn
class Model(torch.nn.Linear):
    def forward(self, x): return {"feats": x, "z": super().forward(x)}
x, y = torch.eye(4).repeat(4, 1), torch.arange(4).repeat(4)
bank = extract_features([(x, y)], Model(4, 2))
assert [part.shape[0] for part in bank] == [16] * 3 and not bank[1].requires_grad
assert run_knn(bank[0], bank[2], bank[0], bank[2], k=1, T=0.07, distance_fx="cosine")[0] == 100
assert run_knn(train_features=x, train_targets=y, test_features=x, test_targets=y, k=1, T=None,
               distance_fx="euclidean")[0] == 100""",
}


@pytest.mark.fault(7, "`import solo; solo.utils.misc`, `from main_knn import run_knn`, stars", "work")
@pytest.mark.thorough
def test_in_a_fresh_process():
    told = "for name, code in pieces.items():\n    print(name, flush=True)\n    exec(code, {})"
    command = [sys.executable, "-W", "ignore", "-c", f"pieces = {FRESH!r}\n{told}"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def backbones():
    from solo.backbones.convnext.convnext import convnext_tiny
    from solo.backbones.resnet.resnet import resnet18
    from solo.backbones.swin.swin import swin_tiny
    from solo.backbones.vit.vit_mae import MaskedAutoencoderViT, vit_tiny

    vit = vit_tiny(img_size=32, patch_size=8, depth=1)
    assert isinstance(vit, MaskedAutoencoderViT) and len(vit(torch.zeros(2, 3, 32, 32), 0.5)) == 4
    assert resnet18(num_classes=3).fc.out_features == 3 and convnext_tiny(depths=(1, 1, 1, 1)).num_features == 768
    assert swin_tiny(img_size=32, window_size=4, depths=(1, 1, 1, 1)).num_features == 768


def losses_gradients():
    from solo.losses import mocov3_loss_func, ressl_loss_func

    q, k, queue = (torch.randn(4, 8, requires_grad=True) for _ in range(3))
    mocov3_loss_func(q, k, temperature=0.1).backward()
    assert k.grad is not None and k.grad.abs().sum() > 0
    k.grad = None
    ressl_loss_func(q, k, queue).backward()
    student = torch.autograd.grad(ressl_loss_func(q.detach(), k, queue), queue)[0]
    target = (k @ queue.T).detach()  # a target that passes no gradient
    expected = -((target / 0.04).softmax(1) * (q.detach() @ queue.T / 0.1).log_softmax(1)).sum(1).mean()
    assert k.grad is None and torch.allclose(student, torch.autograd.grad(expected, queue)[0], atol=1e-5)


def hex_losses():
    from solo.losses.nnclr import nnclr_loss_func_decompose_adaptive, nnclr_loss_func_hard_decompose
    from solo.losses.simclr import simclr_loss_func_hex_adaptive, simclr_loss_func_hex_fixed

    z, ids = torch.randn(8, 4, requires_grad=True), torch.arange(4).repeat(2)
    for loss in (
        simclr_loss_func_hex_fixed(z, indexes=ids, temperature=0.1, distance_thresh=0.5, beta=1, tau_plus=0.1),
        simclr_loss_func_hex_adaptive(z, ids, 0.1, beta=1, tau_plus=0.1, current_epoch=11, warm_epoch=10),
        nnclr_loss_func_hard_decompose(z[:4], z[4:], 0.1, 0.9),
        nnclr_loss_func_decompose_adaptive(z[:4], z[4:], temperature=0.1, current_epoch=0, warm_epoch=10),
    ):
        assert loss.ndim == 0 and torch.autograd.grad(loss, z)[0].isfinite().all()


def gathering():
    from solo.utils.misc import concat_all_gather_no_grad, gather, get_rank

    x = torch.randn(3, 2, requires_grad=True)
    assert concat_all_gather_no_grad(x) is x and gather(x).requires_grad and get_rank() == 0


def knn_metric():
    from solo.utils.knn import WeightedKNNClassifier

    knn = WeightedKNNClassifier(k=2, T=0.07, distance_fx="euclidean")
    x, y = torch.eye(4), torch.arange(4)
    knn(train_features=x, train_targets=y)
    knn(test_features=x, test_targets=y)
    assert knn.compute()[0] == 100


def optimizers():
    from solo.utils.lars import LARS
    from solo.utils.lr_scheduler import LinearWarmupCosineAnnealingLR
    from solo.utils.misc import remove_bias_and_norm_from_weight_decay

    net = torch.nn.Linear(2, 2)
    groups = remove_bias_and_norm_from_weight_decay([{"name": "net", "params": net.parameters()}])
    optimizer = LARS(groups, lr=1.0, momentum=0.9, eta=0.02, clip_lr=True, exclude_bias_n_norm=True)
    schedule = LinearWarmupCosineAnnealingLR(optimizer, warmup_epochs=2, max_epochs=4, warmup_start_lr=0.1, eta_min=0.0)
    optimizer.step(), schedule.step()
    assert [group["name"] for group in groups] == ["net", "net_no_decay"] and schedule.get_last_lr()[0] == 1.0


def callbacks():
    from solo.utils.auto_resumer import AutoResumer
    from solo.utils.auto_umap import AutoUMAP
    from solo.utils.checkpointer import Checkpointer

    cfg = OmegaConf.create({"checkpoint": {}, "auto_resume": {}, "auto_umap": {}})
    for kind in (Checkpointer, AutoResumer, AutoUMAP):
        kind.add_and_assert_specific_cfg(cfg)
    assert cfg.checkpoint.dir == "trained_models" and cfg.auto_resume.max_hours == 36 and cfg.auto_umap.frequency == 1
    assert len(Checkpointer.random_string()) == 8 and "optimizer.lr" in str(AutoResumer.SHOULD_MATCH)


def whitening():
    from solo.utils.sinkhorn_knopp import SinkhornKnopp
    from solo.utils.whitening import Whitening2d

    assert Whitening2d(4)(torch.randn(16, 4)).shape == (16, 4)
    assert torch.allclose(SinkhornKnopp(3, 0.05, 1)(torch.randn(6, 3)).sum(1), torch.ones(6), atol=1e-4)


PIECES = [backbones, losses_gradients, hex_losses, gathering, knn_metric, optimizers, callbacks, whitening]


@pytest.mark.fault(7, "gradients of MoCo v3's and ReSSL's losses, HEX losses, helpers", "as there")
@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.__name__)
@pytest.mark.filterwarnings("ignore")
def test_pieces(piece):
    piece()


RECIPE = """
defaults:
  - _self_
  - wandb: private.yaml
  - override hydra/hydra_logging: disabled
hydra:
  output_subdir: null
  run:
    dir: .
name: "mine"
data:
  dataset: cifar100
  train_path: "."
  val_path: "."
  format: "image_folder"
  num_workers: 4
backbone:
  name: "resnet18"
optimizer:
  name: "sgd"
  batch_size: 256
  lr: 0.3
  classifier_lr: 0.1
  weight_decay: 0
scheduler:
  name: "step"
  lr_decay_steps: [60, 80]
devices: [0]
max_epochs: 100
"""
VIEWS = "augmentations: [{crop_size: 32, num_crops: 2, rrc: {enabled: True, crop_min_scale: 0.2, crop_max_scale: 1.0}}]"
SIMCLR = f"method: simclr\nmethod_kwargs: {{proj_hidden_dim: 8, proj_output_dim: 4, temperature: 0.2}}\n{VIEWS}\n"


def loaded(text):
    cfg = OmegaConf.create(text)
    OmegaConf.set_struct(cfg, False)
    return cfg


@pytest.mark.parametrize("feature_extractor", ["", "pretrained_feature_extractor: None\n"])
def test_a_loaded_linear_recipe(feature_extractor):
    from solo.args.linear import parse_cfg

    cfg = parse_cfg(loaded(RECIPE + feature_extractor + "pretrain_method: barlow_twins\n"))
    assert cfg.data.num_classes == 100 and "defaults" not in cfg and "hydra" not in cfg
    assert cfg.optimizer.lr == pytest.approx(0.3) and cfg.pretrained_feature_extractor is None


@pytest.mark.fault(7, "`parse_cfg(OmegaConf.load(recipe))`, keys of an own main", "kept, named in a warning")
def test_a_loaded_pretraining_recipe_with_own_keys(caplog):
    from solo.args.pretrain import parse_cfg

    own = "distill: {lam: 0.5}\ndata: {task: 3}\noptimizer: {sam_rho: 0.1}\nmethod_kwargs: {queue: 5}\n"
    cfg = OmegaConf.merge(loaded(RECIPE + SIMCLR), loaded(own))
    cfg.augmentations[0].rotation = {"prob": 0.5}
    cfg = parse_cfg(parse_cfg(cfg))
    assert cfg.distill.lam == 0.5 and cfg.data.task == 3 and cfg.optimizer.sam_rho == 0.1
    assert cfg.method_kwargs.queue == 5 and cfg.augmentations[0].rotation.prob == 0.5
    assert cfg.optimizer.lr == pytest.approx(0.3) and cfg.data.num_large_crops == 2
    assert all(key in caplog.text for key in ("distill", "data.task", "optimizer.sam_rho", "method_kwargs.queue"))


def test_own_keys_with_names_that_the_library_knows_stay_as_they_are():
    from solo.args.linear import parse_cfg as linear
    from solo.args.pretrain import parse_cfg

    cfg = OmegaConf.merge(loaded(RECIPE + SIMCLR))
    cfg.augmentations[0].rotation = {"prob": 0.5, "enabled": False}
    assert parse_cfg(cfg).augmentations[0].rotation == {"prob": 0.5, "enabled": False}
    cfg = linear(loaded(RECIPE + "temperature: 0.5\ntype: distilled\nhex: {policy: mine}\n"))
    assert (cfg.temperature, cfg.type, cfg.hex) == (0.5, "distilled", {"policy": "mine"})


@pytest.mark.parametrize(
    "extra",
    [
        "method: mine\nmethod_kwargs: {anything: 1}\n" + VIEWS,
        SIMCLR + "optimizer: {name: rmsprop, batch_size: 8, lr: 1.0, weight_decay: 0}\n",
        SIMCLR + "scheduler: {name: cyclic}\n",
        "method: byol\n" + VIEWS,  # method_kwargs come later
    ],
)
def test_what_a_program_adds_itself(extra):
    from solo.args.pretrain import parse_cfg

    cfg = parse_cfg(OmegaConf.merge(loaded(RECIPE), loaded(extra)))
    assert cfg.max_epochs == 100 and cfg.data.num_large_crops == 2


def test_groups_that_nobody_composed_are_named():
    from solo.args.pretrain import parse_cfg

    text = RECIPE.replace("wandb: private.yaml", "augmentations: symmetric.yaml") + "method: simclr\n"
    with pytest.raises(AssertionError, match="augmentations: symmetric.yaml|'augmentations': 'symmetric.yaml'"):
        parse_cfg(loaded(text))


@pytest.mark.fault(7, "solo-learn is installed too", "said by doctor and the first error")
def test_two_packages_of_one_name(monkeypatch, capsys):
    from solo import cli
    from solo.compat import twin

    assert twin() is None
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: type("D", (), {"version": "1.0.6"}))
    assert cli.main(["pretrian"]) == 2
    said = capsys.readouterr().err
    assert "solo-learn 1.0.6 is installed too" in said and "pip uninstall -y solo-learn" in said
