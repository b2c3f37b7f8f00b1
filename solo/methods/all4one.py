"""All4One: NNCLR, contrast of neighbourhoods summarised by attention, and redundancy reduction, together.

Estepa, Saratxaga, Nagar, Gomez: All4One: Symbiotic neighbour contrastive learning via self-attention and redundancy
reduction, https://arxiv.org/abs/2303.09417. `type: HEX_*` replaces the NNCLR part by HEX.
As in solo-learn, the attention's learning rate is 0.1 and its temperature 0.1, whatever the config says.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo import distributed
from solo.eval.metrics import mean_std
from solo.losses.info_nce import info_nce
from solo.losses.numerics import full_precision, off_diagonal
from solo.losses.pairs import Pairs
from solo.methods.base import Outputs, TrainStep
from solo.methods.kwargs import NNCLRKwargs
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.heads import PredictorHeads, mlp
from solo.nn.positional_encodings import PositionalEncodingPermute1D, Summer
from solo.nn.queue import QueueMixin
from solo.precision import at_least_float32

NEIGHBOURS = 5


class All4One(QueueMixin, PredictorHeads, BaseMomentumMethod):
    """Projector with a slow copy, two predictors, a small transformer, and a queue of slow projections."""

    Kwargs = NNCLRKwargs
    trainable = ("projector", "predictor", "predictor2", "transformer_encoder")
    group_options = {"transformer_encoder": {"lr": 0.1}}
    averaged = ("projector",)
    unit_targets = True
    metric = "train_comb_loss"
    queue_index: Tensor

    def build(self, kw: NNCLRKwargs) -> None:
        self.temperature = kw.temperature
        width = kw.proj_output_dim
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, width, depth=3, last_norm="affine")
        self.predictor, self.predictor2 = (mlp(width, kw.pred_hidden_dim, width) for _ in range(2))
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

    def dequeue_and_enqueue(self, z: Tensor, y: Tensor, idx: Tensor) -> None:
        """Put projections (B, proj_output_dim), labels (B,) and sample ids (B,) into the queue."""
        self.enqueue(z, queue_y=y, queue_index=idx)

    def attend(self, z: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor]:
        """What attention makes of the neighbours (B, 5, D), and of z's own prediction among them: (B, D) each."""
        own = torch.cat([self.predictor2(z)[:, None], neighbours], dim=1)[:, :NEIGHBOURS]
        both = [self.transformer_encoder(self.pos_enc(sequence))[:, 0] for sequence in (neighbours, own)]
        return both[0], both[1]

    def info_nce(self, pairs: Pairs) -> Tensor:
        """The method's own contrast of pairs."""
        return info_nce(pairs, self.temperature)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Half of the attention's, of NNCLR's (or HEX's) and of the features' loss each."""
        (z1, z2), (p1, p2), (m1, m2) = out["z"], out["p"], out["momentum_z"]
        (places, nn1, _, _), (_, nn2, _, _) = self.find_nn(m1), self.find_nn(m2)
        (context1, own1), (context2, own2) = self.attend(z1, nn1), self.attend(z2, nn2)
        every = distributed.gather_later(*map(at_least_float32, (m1, m2, z2, z1)))
        anchors, keys = [nn1[:, 0], nn2[:, 0], context1, context2], [p2, p1, own2, own1]
        found = Pairs.between_later(anchors, keys, step.ids, step.groups)
        self.dequeue_and_enqueue(m1, step.targets, step.ids)
        *directions, one, other = found()
        neighbour = torch.stack(
            [self.hex.replace(self.info_nce, pairs, step, m1, fixed=True) for pairs in directions]
        ).mean()
        attention = (info_nce(one, 0.1) + info_nce(other, 0.1)) / 2
        m1, m2, z2, z1 = every()  # from here on those of all processes
        feature = redundancy(torch.stack([m1, m2]), torch.stack([z2, z1]))
        self.log_metrics(
            {
                "train_nnclr_loss": neighbour,
                "train_att_nnclr_loss": attention,
                "train_feature_loss": feature,
                "train_nn_acc": self.neighbour_accuracy(places, step.targets, self.labelled(step.targets)),
                "train_z_std": mean_std(torch.stack([z1, z2]), everyone=True),
            }
        )
        return 0.5 * (attention + neighbour + feature)


@full_precision
def redundancy(a: Tensor, b: Tensor) -> Tensor:
    """How far the correlation matrices of (V, B, D) rows of all processes are from the identity, on and off it."""
    correlations = F.normalize(a, dim=1).mT @ F.normalize(b, dim=1)  # (V, D, D)
    on = torch.stack([(c.diagonal() - 1).square().mean() for c in correlations]).mean()
    off = torch.stack([off_diagonal(c).square().mean() for c in correlations]).mean()
    # A root of 0 has no gradient; the bound gives it one of 0.
    return 5 * torch.stack([on, off]).clamp_min(torch.finfo(on.dtype).tiny).sqrt().sum()
