"""Methods that predict prototypes: SwAV and DeepCluster v2 those of an image's cluster, DINO those of a slow copy."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from solo import distributed
from solo.errors import UserError
from solo.losses.pairs import unit
from solo.losses.targets import DINOLoss, deepclusterv2_loss_func, ibot_loss_func, koleo_later, swav_loss_func
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.catalogue import DeepClusterV2Kwargs, DINOKwargs, DINOv2Kwargs, SwAVKwargs
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.memory import KMeans, LateBuffers, SinkhornKnopp
from solo.nn.networks import WeightNormLinear, mlp
from solo.nn.vit import PatchTokens, rows_of


class SwAV(LateBuffers, BaseMethod):
    """SwAV: predict the cluster of a view from the other views; clusters are balanced soft assignments to prototypes.

    Caron et al.: Unsupervised learning of visual features by contrasting cluster assignments,
    https://arxiv.org/abs/2006.09882. The queue (2, queue_size / processes, proj_output_dim) is of each process's own.
    """

    trainable = ("projector", "prototypes")
    metric = "train_swav_loss"
    late = ("queue",)

    def build(self, kw: SwAVKwargs) -> None:
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim)
        self.prototypes = WeightNormLinear(kw.proj_output_dim, kw.num_prototypes)
        self.sk = SinkhornKnopp(kw.sk_iters, kw.sk_epsilon)

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the projections (B, proj_output_dim) at length 1, and `p`, the scores (B, num_prototypes)."""
        z = unit(self.projector(feats))
        return {"z": z, "p": self.prototypes(z)}

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.queue_size:
            rows, weight = self.queue_size // distributed.world_size(), self.prototypes.weight_v
            self.set_late_buffer("queue", weight.new_zeros(2, rows, weight.shape[1]))

    @torch.no_grad()
    def get_assignments(self, preds: Sequence[Tensor]) -> list[Tensor]:
        """Scores (B, num_prototypes) of each large view -> assignments of the same shape; rows sum to 1."""
        scores, counts = list(preds), None
        for view, p in enumerate(preds):
            if self.queue is not None and self.current_epoch >= self.epoch_queue_starts:
                bank = self.queue[view]
                filled = bank.any(dim=1)  # zeros: not filled yet
                if bank.is_cpu:
                    bank = bank[filled]
                else:  # how many are filled is not known here
                    counts = torch.cat([filled.new_ones(len(p)), filled])  # alike for all views
                scores[view] = torch.cat([p, self.prototypes(bank)])
        balanced = self.sk(torch.stack(scores), None if counts is None else counts.expand(len(scores), -1))
        return list(balanced[:, : len(preds[0])])

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        assignments = self.get_assignments(out["p"][: self.num_large_crops])
        if self.queue is not None:
            z = torch.stack(out["z"][: self.num_large_crops]).detach()
            self.queue.copy_(torch.cat([z, self.queue], dim=1)[:, : self.queue.shape[1]])  # newest first
        return swav_loss_func(out["p"], assignments, self.temperature)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.current_epoch < self.freeze_prototypes_epochs:
            self.prototypes.zero_grad(set_to_none=True)


class DeepClusterV2(LateBuffers, BaseMethod):
    """DeepCluster v2: predict the cluster that k-means gave to the image, on last epoch's projections.

    Caron et al.: Unsupervised learning of visual features by contrasting cluster assignments (appendix),
    https://arxiv.org/abs/2006.09882. Sets of frozen prototypes are the centroids; each process remembers its own rows.
    """

    trainable = ("projector",)
    metric = "train_deepcluster_loss"
    late = ("local_memory_index", "local_memory_embeddings")

    def build(self, kw: DeepClusterV2Kwargs) -> None:
        if len(set(kw.num_prototypes)) != 1:
            what = f"method_kwargs.num_prototypes={list(kw.num_prototypes)}"
            raise UserError(f"{what} must be a list of equal numbers, one a set")
        width = kw.proj_output_dim
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, width)
        self.prototypes = nn.ModuleList(nn.Linear(width, k, bias=False) for k in kw.num_prototypes)
        for prototypes in self.prototypes.parameters():
            prototypes.requires_grad_(False).copy_(F.normalize(prototypes, dim=1))
        self.assignments: Tensor | None = None  # (sets, samples); None: nothing is clustered yet

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the projections (B, proj_output_dim) at length 1, and `p`, the scores (sets, B, prototypes)."""
        z = unit(self.projector(feats))
        return {"z": z, "p": torch.stack([prototypes(z) for prototypes in self.prototypes])}

    def on_train_start(self) -> None:
        """Make the memory, unless the checkpoint had one, and what clusters it."""
        super().on_train_start()
        rows = int(self.trainer.num_training_batches) * self.batch_size
        like = next(self.prototypes.parameters())
        width = like.shape[1]
        start = like.new_zeros(self.num_large_crops, rows, width)  # filled before it is read
        fresh = self.set_late_buffer("local_memory_embeddings", start)
        index = torch.zeros(rows, dtype=torch.long, device=self.device)
        self._memory_filled = not (self.set_late_buffer("local_memory_index", index) or fresh)
        loader: Any = self.trainer.train_dataloader
        own = (distributed.world_size(), distributed.rank())
        sizes = (self.num_large_crops, len(loader.dataset), width)
        self.kmeans = KMeans(*own, *sizes, self.num_prototypes, self.kmeans_iters)

    @torch.no_grad()
    def on_train_epoch_start(self) -> None:
        """Cluster what the last epoch has left in the memory; the prototypes become the centroids."""
        if self._memory_filled:
            memory = self.local_memory_index, self.local_memory_embeddings
            self.assignments, centroids = self.kmeans.cluster_memory(*memory)
            for prototypes, rows in zip(self.prototypes.parameters(), centroids, strict=True):
                prototypes.copy_(rows)
        self._memory_filled = True  # by the end of this epoch

    @torch.no_grad()
    def update_memory_banks(self, idxs: Tensor, z: list[Tensor], batch_idx: int) -> None:
        """Remember sample ids (B,) and the projections (B, proj_output_dim) of the large views, batch by batch."""
        if self.local_memory_index is None:
            return
        rows = slice(batch_idx * self.batch_size, batch_idx * self.batch_size + len(idxs))
        self.local_memory_index[rows] = idxs
        self.local_memory_embeddings[:, rows] = torch.stack(z).to(self.local_memory_embeddings.dtype)

    def process_state(self) -> dict[str, Any]:
        return {**super().process_state(), "assignments": self.assignments}

    def load_process_state(self, state: dict[str, Any]) -> None:
        super().load_process_state(state)
        self.assignments = state["assignments"]

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Cross-entropy of all views with the clusters; 0 as long as there are none, in the first epoch."""
        self.update_memory_banks(step.ids, out["z"][: self.num_large_crops], step.index or 0)
        unknown = step.ids.new_full((len(self.prototypes), len(step.ids)), -1)
        clusters = unknown if self.assignments is None else self.assignments[:, step.ids]
        return deepclusterv2_loss_func(torch.stack(out["p"], dim=1), clusters, self.temperature)


class DINOHead(nn.Module):
    """MLP of `num_layers` linear layers, rows to length 1, and prototypes, of length 1 with `norm_last_layer`."""

    def __init__(
        self,
        in_dim: int,
        num_prototypes: int,
        use_bn: bool = True,
        norm_last_layer: bool = True,
        num_layers: int = 3,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
    ) -> None:
        super().__init__()
        self.mlp = mlp(in_dim, hidden_dim, bottleneck_dim, depth=num_layers, norm=use_bn, activation=nn.GELU)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = WeightNormLinear(bottleneck_dim, num_prototypes, learn_length=not norm_last_layer)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim) -> (N, num_prototypes)."""
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))  # type: ignore[no-any-return]


class DINO(BaseMomentumMethod):
    """DINO: a network predicts, on one view, what its slow copy says of another; the copy is centred and sharpened.

    Caron et al.: Emerging properties in self-supervised vision transformers, https://arxiv.org/abs/2104.14294.
    """

    trainable: ClassVar[tuple[str, ...]] = ("head",)
    averaged: ClassVar[tuple[str, ...]] = ("head",)
    metric = "dino_loss"

    def build(self, kw: DINOKwargs) -> None:
        self.head = self.make_head(kw)
        ends = (kw.warmup_teacher_temperature, kw.teacher_temperature)
        epochs = kw.warmup_teacher_temperature_epochs
        views, of_student = self.num_large_crops, kw.student_temperature
        self.dino_loss_func = DINOLoss(kw.num_prototypes, *ends, epochs, self.max_epochs, of_student, views)

    def make_head(self, kw: DINOKwargs) -> DINOHead:
        widths = {"hidden_dim": kw.proj_hidden_dim, "bottleneck_dim": kw.proj_output_dim}
        return DINOHead(self.features_dim, kw.num_prototypes, kw.use_bn_in_head, kw.norm_last_layer, **widths)

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the scores (B, num_prototypes)."""
        return {"z": self.head(feats)}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Cross-entropy of each view's scores, small ones too, under the slow ones of other large views."""
        self.dino_loss_func.epoch = step.epoch
        return self.dino_loss_func(torch.cat(out["z"]), torch.cat(out["momentum_z"]))  # type: ignore[no-any-return]

    def dino_clip_gradients(self, clip: float) -> None:
        """Shorten each gradient of the backbone, parameter by parameter, to `clip`."""
        if grads := [p.grad for p in self.backbone.parameters() if p.grad is not None]:
            shares = (clip / (torch.stack(torch._foreach_norm(grads)) + 1e-6)).clamp(max=1)
            torch._foreach_mul_(grads, list(shares.unbind()))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the backbone's gradients; leave the heads' last layers as they are in the first epochs."""
        if self.clip_grad:
            self.dino_clip_gradients(self.clip_grad)
        for name in self.averaged if self.current_epoch < self.freeze_last_layer else ():
            getattr(self, name).last_layer.zero_grad(set_to_none=True)


class DINOv2(DINO):
    """DINOv2: DINO's loss on the class token, iBOT's on hidden patches, balanced targets, and features that keep apart.

    Oquab et al.: DINOv2, learning robust visual features without supervision, https://arxiv.org/abs/2304.07193. The
    loss is DINO + ibot_weight * iBOT + koleo_weight * KoLeo. Targets are balanced by Sinkhorn and Knopp's algorithm, as
    in SwAV; patches have a head of their own. Registers (https://arxiv.org/abs/2309.16588) are
    `backbone.kwargs.reg_tokens=4`. Otherwise than there, every second image of a batch has the same share of its
    patches hidden, where blurred noise is highest; there it is a tenth to half of them, in blocks.
    """

    trainable = ("head", "patch_head", "mask_token")
    averaged = ("head", "patch_head")
    patch_targets = True
    metric = "dinov2_loss"

    def build(self, kw: DINOv2Kwargs) -> None:  # type: ignore[override]
        self._tokens = PatchTokens(self.backbone, self.backbone_name)
        self.head, self.patch_head = self.make_head(kw), self.make_head(kw)
        self.mask_token = nn.ParameterList([torch.zeros(1, 1, self.features_dim)])
        ends = (kw.warmup_teacher_temperature, kw.teacher_temperature)
        epochs = kw.warmup_teacher_temperature_epochs
        self.temperatures = DINOLoss.temperatures(*ends, epochs, self.max_epochs).tolist()

    def forward(self, X: Tensor) -> Outputs:
        """Adds in training `hidden` (b, k), places of hidden patches, and `patch_z`, their scores (b * k, P)."""
        if not self.training:
            return super().forward(X)
        side = X.shape[-1] // self._tokens.patch
        # Drawn for the rows of all processes, which are seeded alike: hidden is where blurred noise is highest.
        noise = torch.rand(len(X) * distributed.world_size(), 1, side, side, device=X.device)
        noise = F.avg_pool2d(noise, 3, stride=1, padding=1, count_include_pad=False) if side > 3 else noise
        count = max(1, int(self.mask_ratio * side**2))
        hidden = distributed.own_rows(noise).flatten(1).topk(count, dim=1).indices[::2]
        mask = torch.zeros(len(X), side**2, dtype=torch.bool, device=X.device)
        mask[::2].scatter_(1, hidden, True)
        with self._tokens.showing(hidden=(mask, self.mask_token[0])):
            out = super().forward(X)
        patches = rows_of(self._tokens.take()[::2], hidden)
        return {**out, "hidden": hidden, "patch_z": self.patch_head(patches.flatten(0, 1))}

    def view_outputs(self, batch: Any) -> Outputs:
        """Adds `momentum_patch_z`, what the slow head says of the hidden patches."""
        out = super().view_outputs(batch)
        views = zip(out.pop("momentum_patches"), out.pop("hidden"), strict=True)
        with torch.no_grad():
            chosen = [rows_of(patches[::2], hidden).flatten(0, 1) for patches, hidden in views]
            return {**out, "momentum_patch_z": [self.momentum_patch_head(patches) for patches in chosen]}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        views = self.num_large_crops
        balanced = SinkhornKnopp(epsilon=self.temperatures[min(step.epoch, self.max_epochs - 1)])
        koleo = koleo_later(torch.stack(out["feats"][:views]))
        target, patches = balanced.each(torch.cat(out["momentum_z"]), torch.cat(out["momentum_patch_z"]))
        dino = swav_loss_func(out["z"], target.chunk(views), self.student_temperature)
        ibot = ibot_loss_func(torch.cat(out["patch_z"]), patches, self.student_temperature)
        return dino + self.ibot_weight * ibot + self.koleo_weight * koleo()  # type: ignore[no-any-return]
