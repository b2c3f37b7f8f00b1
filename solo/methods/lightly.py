"""Any loss of the package lightly that compares two views of an image."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from solo import distributed
from solo.errors import UserError
from solo.losses.pairs import unit
from solo.methods import lightly_losses
from solo.methods.base import MlpHeads, Outputs, TrainStep
from solo.methods.lightly_losses import LightlyKwargs
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.heads import mlp
from solo.precision import at_least_float32, full_precision


class Lightly(MlpHeads, BaseMomentumMethod):
    """lightly: any loss of the package of that name that compares two views of an image.

    `method_kwargs.loss` names a class of `lightly.loss`, `method_kwargs.loss_kwargs` has its settings; those of the
    installed version are listed by `--help method=lightly`. A loss that was published with a slow copy of the network
    has one here, too (`method_kwargs.teacher`); with a slow copy or a predictor the loss is the mean of both
    directions, and its target gets no gradient. Every loss sees the rows of all processes, gathered with gradient, so
    that its value doesn't depend on their number. `type: HEX_*` blends HEX in: `(1 - alpha) * own + alpha * HEX`.
    """

    trainable = ("projector", "predictor")
    averaged = ("projector",)
    metric = "train_lightly_loss"

    def build(self, kw: LightlyKwargs) -> None:
        self.known = lightly_losses.losses()[kw.loss]
        self.has_teacher = lightly_losses.has_teacher(vars(kw))
        self.predicts = kw.pred_hidden_dim is not None
        width = kw.proj_output_dim or self.features_dim
        projector = mlp(self.features_dim, kw.proj_hidden_dim, width, depth=3) if kw.proj_output_dim else nn.Identity()
        self.projector = projector
        self.predictor = mlp(width, kw.pred_hidden_dim, width) if kw.pred_hidden_dim else nn.Identity()
        self.criterion = self._criterion(kw, width)

    def _criterion(self, kw: LightlyKwargs, width: int) -> nn.Module:
        """The loss, whose state is all in buffers. Raises a `UserError` if it refuses its settings."""
        from lightly import loss

        # DCLWLoss copies a tensor in a way that torch warns of, in every step.
        warnings.filterwarnings("ignore", "To copy construct from a tensor", module=r"lightly\.")
        given = {name: width if value == "width" else value for name, value in self.known.given.items()}
        try:
            criterion: nn.Module = getattr(loss, kw.loss)(**{**kw.loss_kwargs, **given})
        except (TypeError, ValueError) as error:
            raise UserError(f"method_kwargs.loss_kwargs: {kw.loss} says: {' '.join(str(error).split())}") from error
        if self.known.state is not None:
            delattr(criterion, self.known.state)
            criterion.register_buffer(self.known.state, torch.zeros(width, width))
        return criterion

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """The loss of the two views, or of each prediction and the other view's target, with HEX's share."""
        z1, z2 = map(at_least_float32, out["z"])  # once, for both losses: their gradients add up
        if self.has_teacher or self.predicts:
            t1, t2 = (t.detach() for t in (out["momentum_z"] if self.has_teacher else (z1, z2)))
            p1, p2 = out["p"] if self.predicts else (z1, z2)
            views = [p1, t2, p2, t1]
        else:
            views = [z1, z2]
        return self.hex.blend(lambda: self.compare(*views), [z1, z2], step)

    def compare(self, *views: Tensor) -> Tensor:
        """The mean loss of pairs of views (N, D), one after the other, of all processes' rows.

        Raises a `UserError` if it refuses such a batch.
        """
        try:
            found = distributed.gather_each(*map(at_least_float32, views))
            return torch.stack([self._of_all(a, b) for a, b in zip(found[::2], found[1::2], strict=True)]).mean()
        except (ValueError, AssertionError) as error:
            raise UserError(f"{type(self.criterion).__name__}: {' '.join(str(error).split())}") from error

    @full_precision
    def _of_all(self, a: Tensor, b: Tensor) -> Tensor:
        if self.known.unit:
            a, b = unit(a)[:, None], unit(b)[:, None]
        with self._same_numbers(a):
            if self.known.how == "pair":
                return self.criterion(a, b)  # type: ignore[no-any-return]
            if self.known.how == "large and small":  # the same views twice: the means over views are those of two
                both = torch.stack((a, b))
                return self.criterion(global_proj=both, local_proj=both)  # type: ignore[no-any-return]
            return self.criterion([a, b] if self.known.how == "list" else torch.cat((a, b)))  # type: ignore[no-any-return]

    @contextmanager
    def _same_numbers(self, like: Tensor) -> Iterator[None]:
        """What the loss draws is the same on all processes."""
        if not self.known.random:
            yield
            return
        seed = int(distributed.of_first(torch.randint(2**31, (), device=like.device)))
        with torch.random.fork_rng([like.device] if like.is_cuda else []):
            torch.manual_seed(seed)
            yield
