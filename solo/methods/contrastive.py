"""Methods that tell an image from others: by a softmax or sigmoids, over the batch, a queue or neighbours."""

import math
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo import distributed
from solo.eval.embedding import mean_std
from solo.losses.hierarchical import Kind, hierarchical_contrastive_loss
from solo.losses.info_nce import info_nce, mocov3_loss_func, siglip_loss_func
from solo.losses.pairs import Pairs, RingPairs, off_diagonal
from solo.losses.targets import ressl_loss_func
from solo.methods import catalogue as of
from solo.methods.base import BaseMethod, MlpHeads, Outputs, QueueHeads, TrainStep
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.memory import QueueMixin
from solo.nn.networks import mlp
from solo.nn.vit import PositionalEncodingPermute1D, Summer
from solo.precision import at_least_float32, full_precision

NEIGHBOURS = 5  # of All4One


class SimCLR(MlpHeads, BaseMethod):
    """SimCLR: every image against all others, its own other views as positives.

    Chen, Kornblith, Norouzi, Hinton: A simple framework for contrastive learning of visual representations,
    https://arxiv.org/abs/2002.05709.
    """

    metric = "train_nce_loss"
    projector_form = {"norm": False}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """InfoNCE over all views, or HEX; `hex.positives` says how several positives of one anchor count."""
        pairs = RingPairs if self.config.performance.ring_loss else Pairs
        own = partial(info_nce, temperature=self.temperature, positives=self.hex.positives)
        return self.hex.replace(own, pairs.from_views(out["z"], self.same(step), step.groups), step)

    def same(self, step: TrainStep) -> Tensor:
        """Numbers (B,) that are the same for positives."""
        return step.ids


class SupCon(SimCLR):
    """SupCon: SimCLR whose positives are all images of the same label.

    Khosla et al.: Supervised contrastive learning, https://arxiv.org/abs/2004.11362. Positives are summed inside the
    log (their L_in), as in solo-learn; `hex.positives=outside` takes the mean of the logs (L_out, which they
    recommend). An image without a label has its own views as positives. HEX has the same positives.
    """

    def same(self, step: TrainStep) -> Tensor:
        return torch.where(step.targets >= 0, step.targets, -1 - step.ids)


class HiMulConE(SimCLR):
    """HiMulConE: contrastive with the labels of all levels; the views of an image meet at its leaf.

    Zhang, Xu, Xiong, Ramaiah: Use All The Labels, https://arxiv.org/abs/2204.13207. What an image has no label for, it
    is compared by itself, as in SimCLR. HEX takes the hierarchy from the batch where labels don't give it, see
    `solo/hex/loss.py`; `hex.temperature` is then that of the whole loss, as in methods whose loss HEX replaces.
    """

    metric = "train_hierarchical_loss"
    kind: ClassVar[Kind] = "himulcone"

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        labels = step.labels
        if self.instance:
            labels = torch.cat((labels, step.ids[:, None].to(labels)), dim=1)
        labels = labels.repeat(len(out["z"]), 1)
        key_labels = distributed.gather_later(labels)
        pairs = Pairs.from_views(out["z"], step.ids, step.groups)
        own = (pairs, labels, self.kind, self.hex.temperature)
        settings = (self.level_penalty, self.pairs, self.granularity)
        return hierarchical_contrastive_loss(*own, *settings, self.hex.denominator(pairs, step), *key_labels())


class HiMulCon(HiMulConE):
    """HiMulCon: HiMulConE whose levels weigh differently, and no level constrains another."""

    kind = "himulcon"


class HiConE(HiMulConE):
    """HiConE: HiMulConE in which no pair of a coarser level has a smaller loss than any of a finer one."""

    kind = "hicone"


class SigLIP(MlpHeads, BaseMethod):
    """SigLIP for two views: a sigmoid for each pair of images, with a temperature and a bias that are learned.

    Zhai, Mustafa, Kolesnikov, Beyer: Sigmoid loss for language image pre-training, https://arxiv.org/abs/2303.15343;
    here the second view is what there is the text.
    """

    trainable = ("projector", "scale")
    group_options = {"scale": {"weight_decay": 0}}
    metric = "train_siglip_loss"
    projector_form = {"norm": False}

    def build(self, kw: of.SigLIPKwargs) -> None:
        super().build(kw)
        first = {"log_scale": -math.log(kw.temperature), "bias": kw.bias}
        self.scale = nn.ParameterDict({name: nn.Parameter(torch.tensor([value])) for name, value in first.items()})

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        (z1, z2), scale = map(at_least_float32, out["z"]), self.scale  # once, for both losses: their gradients add up
        self.log_metrics({"train_temperature": (-scale["log_scale"]).exp(), "train_bias": scale["bias"]})
        return self.hex.blend(partial(siglip_loss_func, z1, z2, scale["log_scale"], scale["bias"]), [z1, z2], step)


class MoCoV2Plus(QueueHeads, BaseMomentumMethod):
    """MoCo v2+: negatives from a queue of a slow network's keys; symmetric in the two views.

    Chen, Fan, Girshick, He: Improved baselines with momentum contrastive learning, https://arxiv.org/abs/2003.04297.
    There is one queue a view, from which HEX has its hierarchy negatives; `queue_y` holds labels at `hex.level`.
    """

    averaged = ("projector",)
    unit_outputs = unit_targets = True
    metric = "train_nce_loss"
    projector_form = {"norm": False}
    queue_form = {"views": 2}

    def _dequeue_and_enqueue(self, keys: Tensor, y: Tensor | None = None) -> None:  # its name in solo-learn
        self.dequeue_and_enqueue(keys, y)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """InfoNCE, or HEX, of one view's queries, the other's keys and its queue: mean of the two directions."""
        (q1, q2), (k1, k2) = out["z"], out["momentum_z"]
        bank1, bank2 = self.banks
        own = partial(info_nce, temperature=self.temperature)
        sides = ((q1, k2, bank2), (q2, k1, bank1))
        directions = (Pairs.with_queue(*side, step.groups, self.queue_y) for side in sides)
        loss = torch.stack([self.hex.replace(own, pairs, step, k1 + k2) for pairs in directions]).mean()
        self._dequeue_and_enqueue(torch.stack([k1, k2]), step.groups)
        return loss


class MoCoV3(BaseMomentumMethod):
    """MoCo v3: InfoNCE between predictions and a slow network's projections of the batch, without a queue.

    Chen, Xie, He: An empirical study of training self-supervised vision transformers, https://arxiv.org/abs/2104.02057.
    The heads have no biases; their depth depends on the backbone.
    """

    trainable = ("projector", "predictor")
    averaged = ("projector",)
    metric = "train_contrastive_loss"

    def build(self, kw: of.MoCoV3Kwargs) -> None:
        resnet, width = "resnet" in self.backbone_name, kw.proj_output_dim
        self.projector = self._build_mlp(2 if resnet else 3, self.features_dim, kw.proj_hidden_dim, width)
        self.predictor = self._build_mlp(2, width, kw.pred_hidden_dim, width, last_bn=not resnet)

    def _build_mlp(
        self, num_layers: int, input_dim: int, mlp_dim: int, output_dim: int, last_bn: bool = True
    ) -> nn.Module:
        last_norm: Literal["plain"] | None = "plain" if last_bn else None
        return mlp(input_dim, mlp_dim, output_dim, depth=num_layers, bias=False, last_bias=False, last_norm=last_norm)

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the projections, and `q`, the predictions, both (B, proj_output_dim)."""
        z = self.projector(feats)
        return {"z": z, "q": self.predictor(z)}

    def momentum_heads(self, feats: Tensor) -> Outputs:
        """Add `k`, the slow projections (B, proj_output_dim)."""
        return {"k": self.momentum_projector(feats)}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        (q1, q2), (k1, k2) = out["q"], out["momentum_k"]
        return mocov3_loss_func(q1, k2, self.temperature) + mocov3_loss_func(q2, k1, self.temperature)


class ReSSL(QueueHeads, BaseMomentumMethod):
    """ReSSL: a strongly augmented view relates to a queue of images as a weakly augmented one does.

    Zheng et al.: ReSSL: Relational self-supervised learning with weak augmentation, https://arxiv.org/abs/2107.09282.
    The first view is the strong one, for the trained network, the second the weak one, for its slow copy.
    """

    averaged = ("projector",)
    unit_outputs = unit_targets = True
    metric = "train_ressl_loss"
    projector_form = {"norm": False}
    queue_form = {"labels": ()}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Cross-entropy of the strong view's relations, and those of small ones, under those of the weak one."""
        students, k = [out["z"][0], *out["z"][2:]], out["momentum_z"][1]
        queue = self.queue.clone()
        losses = [ressl_loss_func(q, k, queue, self.temperature_q, self.temperature_k) for q in students]
        self.dequeue_and_enqueue(k)
        return torch.stack(losses).mean()


class NNCLR(QueueHeads, BaseMethod):
    """NNCLR: the positive is the nearest neighbour, in a queue of earlier images, of the other view.

    Dwibedi et al.: With a little help from my friends, https://arxiv.org/abs/2104.14548.
    """

    trainable = ("projector", "predictor")
    unit_outputs = True
    metric = "train_nnclr_loss"
    projector_form = {"depth": 3, "last_norm": "affine"}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """InfoNCE, or HEX, of a large view's neighbours and another view's predictions: mean over the directions."""
        large = out["z"][: self.num_large_crops]
        places, neighbours = zip(*map(self.find_nn, large), strict=True)
        accuracy = self.neighbour_accuracy(places[0], step.targets, self.labelled(step.targets))
        self.log_metrics({"train_nn_acc": accuracy})
        order = [(nn, p) for i, nn in enumerate(neighbours) for j, p in enumerate(out["p"]) if i != j]
        found = Pairs.between_later([nn for nn, _ in order], [p for _, p in order], step.ids, step.groups)
        self.dequeue_and_enqueue(large[0].detach(), step.targets)
        own = partial(info_nce, temperature=self.temperature)
        return torch.stack([self.hex.replace(own, pairs, step, large[0], fixed=True) for pairs in found()]).mean()


class All4One(QueueMixin, MlpHeads, BaseMomentumMethod):
    """All4One: NNCLR, contrast of neighbourhoods summarised by attention, and redundancy reduction, together.

    Estepa et al.: All4One: Symbiotic neighbour contrastive learning via self-attention and redundancy reduction,
    https://arxiv.org/abs/2303.09417. HEX replaces the NNCLR part. As in solo-learn, the attention's learning rate is
    0.1 and its temperature 0.1, whatever the config says.
    """

    trainable = ("projector", "predictor", "predictor2", "transformer_encoder")
    group_options = {"transformer_encoder": {"lr": 0.1}}
    averaged = ("projector",)
    unit_targets = True
    metric = "train_comb_loss"
    projector_form = {"depth": 3, "last_norm": "affine"}

    def build(self, kw: of.NNCLRKwargs) -> None:
        super().build(kw)
        width = kw.proj_output_dim
        self.predictor2 = mlp(width, kw.pred_hidden_dim, width)
        layer = nn.TransformerEncoderLayer(width, nhead=8, dim_feedforward=2 * width, dropout=0.1, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(layer, num_layers=3)
        self.pos_enc = Summer(PositionalEncodingPermute1D(NEIGHBOURS))
        self.make_queue(kw.queue_size, width, labels=("queue_y", "queue_index"))

    def find_nn(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Nearest neighbours in the queue: place of the first (B,); of all five rows (B, 5, D), ids and labels."""
        places = self.nearest(z, NEIGHBOURS)
        return places[:, 0], self.queue[places], self.queue_index[places], self.queue_y[places]

    @staticmethod
    def off_diagonal(x: Tensor) -> Tensor:
        """As solo-learn's: (D, D) -> (D (D - 1),) entries off the diagonal."""
        return off_diagonal(x).flatten()

    def attend(self, z: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor]:
        """What attention makes of the neighbours (B, 5, D), and of z's own prediction among them: (B, D) each."""
        own = torch.cat([self.predictor2(z)[:, None], neighbours], dim=1)[:, :NEIGHBOURS]
        both = [self.transformer_encoder(self.pos_enc(sequence))[:, 0] for sequence in (neighbours, own)]
        return both[0], both[1]

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Half of the attention's, of NNCLR's (or HEX's) and of the features' loss each."""
        (z1, z2), (p1, p2), (m1, m2) = out["z"], out["p"], out["momentum_z"]
        (places, nn1, _, _), (_, nn2, _, _) = self.find_nn(m1), self.find_nn(m2)
        (context1, own1), (context2, own2) = self.attend(z1, nn1), self.attend(z2, nn2)
        every = distributed.gather_later(*map(at_least_float32, (m1, m2, z2, z1)))
        anchors, keys = [nn1[:, 0], nn2[:, 0], context1, context2], [p2, p1, own2, own1]
        found = Pairs.between_later(anchors, keys, step.ids, step.groups)
        accuracy = self.neighbour_accuracy(places, step.targets, self.labelled(step.targets))
        self.dequeue_and_enqueue(m1, step.targets, step.ids)
        *directions, one, other = found()
        own = partial(info_nce, temperature=self.temperature)
        neighbour = torch.stack([self.hex.replace(own, pairs, step, m1, fixed=True) for pairs in directions]).mean()
        attention = (info_nce(one, 0.1) + info_nce(other, 0.1)) / 2
        m1, m2, z2, z1 = every()  # from here on those of all processes
        feature = redundancy(torch.stack([m1, m2]), torch.stack([z2, z1]))
        losses = {"train_nnclr_loss": neighbour, "train_att_nnclr_loss": attention, "train_feature_loss": feature}
        std = mean_std(torch.stack([z1, z2]), everyone=True)
        self.log_metrics({**losses, "train_nn_acc": accuracy, "train_z_std": std})
        return 0.5 * (attention + neighbour + feature)


@full_precision
def redundancy(a: Tensor, b: Tensor) -> Tensor:
    """How far the correlation matrices of (V, B, D) rows of all processes are from the identity, on and off it."""
    correlations = F.normalize(a, dim=1).mT @ F.normalize(b, dim=1)  # (V, D, D)
    on = torch.stack([(c.diagonal() - 1).square().mean() for c in correlations]).mean()
    off = torch.stack([off_diagonal(c).square().mean() for c in correlations]).mean()
    # A root of 0 has no gradient; the bound gives it one of 0.
    return 5 * torch.stack([on, off]).clamp_min(torch.finfo(on.dtype).tiny).sqrt().sum()
