"""Methods without negatives: views predict each other, or their features are kept from collapsing by decorrelation."""

import warnings
from functools import partial
from itertools import combinations

import torch
from torch import Tensor, nn

from solo import distributed
from solo.errors import UserError
from solo.eval.embedding import mean_std
from solo.losses.pairs import unit
from solo.losses.targets import (
    barlow_loss_func,
    byol_loss_func,
    correlation_loss,
    frossl_loss_func,
    lejepa_loss_func,
    simsiam_loss_func,
    vicreg_loss_func,
    weigh,
    wmse_loss_func,
)
from solo.methods import catalogue as of
from solo.methods import lightly_losses
from solo.methods.base import BaseMethod, MlpHeads, Outputs, QueueHeads, TrainStep
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.networks import LateIterNorm, Whitening2d, mlp
from solo.precision import at_least_float32, full_precision


class BYOL(MlpHeads, BaseMomentumMethod):
    """BYOL: predict what a slow copy of the network says of the other view.

    Grill et al.: Bootstrap your own latent, https://arxiv.org/abs/2006.07733. HEX looks at the online projections.
    """

    trainable = ("projector", "predictor")
    averaged = ("projector",)
    metric = "train_neg_cos_sim"

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        self.log_metrics({"train_z_std": mean_std(torch.stack(out["z"][: self.num_large_crops]))})
        pairs = ((p, m) for i, m in enumerate(out["momentum_z"]) for j, p in enumerate(out["p"]) if i != j)
        own = torch.stack([byol_loss_func(p, target) for p, target in pairs]).sum()
        return self.hex.blend(own, out["z"], step)


class NNBYOL(QueueHeads, BYOL):
    """NNBYOL: BYOL whose target is the nearest neighbour, as in `NNCLR`, of what the slow network says."""

    unit_targets = True

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        p1, p2 = out["p"]
        nn1, nn2 = _neighbours(self, out["momentum_z"], out, step)
        return byol_loss_func(p1, nn2) + byol_loss_func(p2, nn1)


class SimSiam(MlpHeads, BaseMethod):
    """SimSiam: predict the other view; stopping the gradient there is enough to prevent collapse.

    Chen, He: Exploring simple Siamese representation learning, https://arxiv.org/abs/2011.10566.
    """

    trainable = ("projector", "predictor")
    group_options = {"predictor": {"static_lr": True}}  # its learning rate stays where it is
    metric = "train_neg_cos_sim"
    projector_form = {"depth": 3, "bias": False, "last_norm": "plain"}
    predictor_form = {"bias": False}

    def build(self, kw: of.PredictorKwargs) -> None:
        super().build(kw)
        self.projector[-2].bias.requires_grad_(False)  # the norm after it takes it away again

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        (z1, z2), (p1, p2) = out["z"], out["p"]
        self.log_metrics({"train_z_std": mean_std(torch.stack([z1, z2]))})
        own = (simsiam_loss_func(p1, z2) + simsiam_loss_func(p2, z1)) / 2
        return self.hex.blend(own, [z1, z2], step)


class NNSiam(QueueHeads, SimSiam):
    """NNSiam: SimSiam whose target is the nearest neighbour, as in `NNCLR`, of the other view."""

    unit_outputs = True

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        p1, p2 = out["p"]
        nn1, nn2 = _neighbours(self, out["z"], out, step)
        return (simsiam_loss_func(p1, nn2) + simsiam_loss_func(p2, nn1)) / 2


def _neighbours(method: NNBYOL | NNSiam, z: list[Tensor], out: Outputs, step: TrainStep) -> tuple[Tensor, Tensor]:
    """Nearest neighbours of two views' projections (B, D), of which the first are put into the queue then."""
    (places, nn1), (_, nn2) = map(method.find_nn, z)
    accuracy = method.neighbour_accuracy(places, step.targets, method.labelled(step.targets))
    method.dequeue_and_enqueue(z[0], step.targets)
    method.log_metrics({"train_z_std": mean_std(torch.stack(out["z"])), "train_nn_acc": accuracy})
    return nn1, nn2


class BarlowTwins(MlpHeads, BaseMethod):
    """Barlow Twins: the cross-correlation of two views should be the identity.

    Zbontar et al.: Barlow Twins: Self-supervised learning via redundancy reduction, https://arxiv.org/abs/2103.03230.
    """

    metric = "train_barlow_loss"
    projector_form = {"depth": 3}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        z1, z2 = out["z"]
        own = partial(barlow_loss_func, z1, z2, lamb=self.lamb, scale_loss=self.scale_loss)
        return self.hex.blend(own, [z1, z2], step)


class VICReg(MlpHeads, BaseMethod):
    """VICReg: views agree, features vary and do not repeat each other.

    Bardes, Ponce, LeCun: VICReg: Variance-invariance-covariance regularization for self-supervised learning,
    https://arxiv.org/abs/2105.04906.
    """

    metric = "train_vicreg_loss"
    hex_scale = 5.0  # the release's, hidden in its code; VICReg's loss is large
    projector_form = {"depth": 3}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        z1, z2 = out["z"]
        weights = (self.sim_loss_weight, self.var_loss_weight, self.cov_loss_weight)
        return self.hex.blend(partial(vicreg_loss_func, z1, z2, *weights), [z1, z2], step)


class VIbCReg(MlpHeads, BaseMethod):
    """VIbCReg: VICReg with a normalised covariance term, and whitened projections if wanted.

    Lee, Aune: VIbCReg: Variance-invariance-better-covariance regularization, https://arxiv.org/abs/2109.00783.
    """

    metric = "train_vibcreg_loss"
    projector_form = {"depth": 3, "activation": nn.GELU}

    def build(self, kw: of.VIbCRegKwargs) -> None:
        super().build(kw)
        self.projector.append(LateIterNorm(kw.proj_output_dim) if kw.iternorm else nn.Identity())

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        z1, z2 = out["z"]
        weights = (self.sim_loss_weight, self.var_loss_weight, self.cov_loss_weight)
        return weigh(z1, z2, weights, correlation_loss, getattr(self.projector[-1], "whiten", None))


class WMSE(MlpHeads, BaseMethod):
    """W-MSE: whitened projections of views should be the same; whitening keeps them from collapsing.

    Ermolov et al.: Whitening for self-supervised representation learning, https://arxiv.org/abs/2007.06346.
    """

    metric = "train_wmse_loss"

    def build(self, kw: of.WMSEKwargs) -> None:
        super().build(kw)
        self.whitening = Whitening2d(kw.proj_output_dim, eps=kw.whitening_eps)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Mean over random partitions of all processes' batch, whose parts they share, and over pairs of views."""
        batch = len(out["z"][0])
        if batch % self.whitening_size:
            what = f"a batch of {batch} can't be cut into parts of method_kwargs.whitening_size={self.whitening_size}"
            raise UserError(f"{what}; choose a divisor of optimizer.batch_size")
        views = distributed.gather_each(*map(at_least_float32, out["z"][: self.num_large_crops]))
        number, device, losses = len(views[0]), views[0].device, []
        drawn = torch.stack([torch.randperm(number, device=device) for _ in range(self.whitening_iters)])
        for order in distributed.of_first(drawn):
            parts = distributed.own_rows(order.view(-1, self.whitening_size))
            white = [torch.cat([self.whitening(z[part]) for part in parts]) for z in views]
            losses += [wmse_loss_func(a, b) for a, b in combinations(white, 2)]
        return torch.stack(losses).mean()


class FroSSL(MlpHeads, BaseMethod):
    """FroSSL: views agree, and the Frobenius norm of their covariance is small, which makes its eigenvalues equal.

    Skean et al.: FroSSL: Frobenius norm minimization for efficient multiview self-supervised learning,
    https://arxiv.org/abs/2310.02903.
    """

    metric = "train_frossl_loss"
    projector_form = {"depth": 3}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        z = [at_least_float32(view) for view in out["z"]]  # once, for both losses: their gradients add up
        return self.hex.blend(partial(frossl_loss_func, z, self.invariance_weight), z, step)


class LeJEPA(MlpHeads, BaseMethod):
    """LeJEPA: embeddings of views agree, and are kept from collapsing by being an isotropic Gaussian; nothing else.

    Balestriero, LeCun: LeJEPA: Provable and scalable self-supervised learning without the heuristics,
    https://arxiv.org/abs/2511.08544. No slow copy, no stopped gradient, no queue: random slices of the embeddings are
    compared with a Gaussian (SIGReg).
    """

    metric = "train_lejepa_loss"
    projector_form = {"depth": 3}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """LeJEPA on all views; slices are drawn in each step, the same on all processes."""
        z = out["z"]
        directions = distributed.of_first(torch.randn(z[0].shape[1], self.num_slices, device=z[0].device))
        own = partial(lejepa_loss_func, z, directions.to(z[0].dtype), self.lamb, self.num_large_crops)
        return self.hex.blend(own, z, step)


class Lightly(MlpHeads, BaseMomentumMethod):
    """lightly: any loss of the package of that name that compares two views of an image.

    `--help method=lightly` lists the losses of the installed version, and their settings. A loss that was published
    with a slow copy of the network has one here, too; with a slow copy or a predictor the loss is the mean of both
    directions, and its target gets no gradient. Every loss sees the rows of all processes, gathered with gradient, so
    that its value doesn't depend on their number.
    """

    trainable = ("projector", "predictor")
    averaged = ("projector",)
    metric = "train_lightly_loss"

    def build(self, kw: lightly_losses.LightlyKwargs) -> None:
        self.known = lightly_losses.losses()[kw.loss]
        self.has_teacher = kw.has_teacher(vars(kw))
        self.predicts = kw.pred_hidden_dim is not None
        width, hidden = kw.proj_output_dim or self.features_dim, kw.proj_hidden_dim
        self.projector = mlp(self.features_dim, hidden, width, depth=3) if kw.proj_output_dim else nn.Identity()
        self.predictor = mlp(width, kw.pred_hidden_dim, width) if kw.pred_hidden_dim else nn.Identity()
        from lightly import loss

        # DCLWLoss copies a tensor in a way that torch warns of, in every step.
        warnings.filterwarnings("ignore", "To copy construct from a tensor", module=r"lightly\.")
        given = {name: width if value == "width" else value for name, value in self.known.given.items()}
        try:
            self.criterion = getattr(loss, kw.loss)(**{**kw.loss_kwargs, **given})
        except (TypeError, ValueError) as error:
            raise UserError(f"method_kwargs.loss_kwargs: {kw.loss} says: {' '.join(str(error).split())}") from error
        if self.known.state is not None:  # all state is in buffers
            delattr(self.criterion, self.known.state)
            self.criterion.register_buffer(self.known.state, torch.zeros(width, width))

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """The loss of the two views, or of each prediction and the other view's target."""
        z1, z2 = map(at_least_float32, out["z"])  # once, for both losses: their gradients add up
        views = [z1, z2]
        if self.has_teacher or self.predicts:
            t1, t2 = (t.detach() for t in (out["momentum_z"] if self.has_teacher else (z1, z2)))
            p1, p2 = out["p"] if self.predicts else (z1, z2)
            views = [p1, t2, p2, t1]
        return self.hex.blend(partial(self.compare, *views), [z1, z2], step)

    @full_precision
    def compare(self, *views: Tensor) -> Tensor:
        """The mean loss of pairs of views (N, D), one after the other; a `UserError` if it refuses such a batch."""
        losses, how = [], self.known.how
        try:
            found = distributed.gather_each(*views)
            for a, b in zip(found[::2], found[1::2], strict=True):
                if self.known.unit:
                    a, b = unit(a)[:, None], unit(b)[:, None]
                # What the loss draws is the same on all processes.
                seed = distributed.of_first(torch.randint(2**31, (), device=a.device)) if self.known.random else None
                with torch.random.fork_rng([a.device] if a.is_cuda else [], enabled=seed is not None):
                    if seed is not None:
                        torch.manual_seed(int(seed))
                    if how == "pair":
                        losses.append(self.criterion(a, b))
                    elif how == "large and small":  # the same views twice: the means over views are those of two
                        both = torch.stack((a, b))
                        losses.append(self.criterion(global_proj=both, local_proj=both))
                    else:
                        losses.append(self.criterion([a, b] if how == "list" else torch.cat((a, b))))
        except (ValueError, AssertionError) as error:
            raise UserError(f"{type(self.criterion).__name__}: {' '.join(str(error).split())}") from error
        return torch.stack(losses).mean()
