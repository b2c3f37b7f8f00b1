"""Relatives that another source than the batch names: a table over the data set, made once, and a bank of embeddings.

A policy here has ``table`` instead of a choice among the negatives of a batch. While training, some of an image's
relatives are drawn in each step and looked up in a ``Bank``: they can be pulled whether they are in the batch or not.

Who is alike may be seen by another eye than the network that is trained: `EYES` are descriptors that nobody has learnt,
of images (B, C, H, W), normalised or not, as (B, d) numbers, which are compared by cosine.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo import distributed
from solo.eval.knn import nearest, nearest_others, spherical_kmeans
from solo.hex.policy import Selector
from solo.hex.rows import Elsewhere
from solo.losses.pairs import Pairs, unit

VERSION = 2  # of the descriptors below: neighbours that are kept on disk are those of one version


def _small(images: Tensor, side: int) -> Tensor:
    """Images (B, C, H, W) at most so large: larger ones lose what is finer."""
    height, width = (min(side, length) for length in images.shape[2:])
    return images if images.shape[2:] == (height, width) else F.adaptive_avg_pool2d(images, (height, width))


def hog(images: Tensor) -> Tensor:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005): 8 unsigned orientations, overlapping cells.

    Cells of a quarter of the side are an eighth apart. A pixel's gradient is that of its strongest channel, and counts
    for the two orientations around it. Square roots make the cosine of two descriptors compare them as distributions
    (Arandjelovic and Zisserman, CVPR 2012).
    """
    x = _small(images, 64)
    dx = F.pad(x, (1, 1))[..., 2:] - F.pad(x, (1, 1))[..., :-2]
    dy = F.pad(x, (0, 0, 1, 1))[..., 2:, :] - F.pad(x, (0, 0, 1, 1))[..., :-2, :]
    strength, channel = (dx.square() + dy.square()).max(dim=1, keepdim=True)
    dx, dy = dx.gather(1, channel), dy.gather(1, channel)
    angle, strength = torch.atan2(dy, dx) % math.pi / math.pi * 8, strength.sqrt()
    low, part = angle.long(), angle.frac()
    planes = x.new_zeros(len(x), 8, *x.shape[2:])
    planes.scatter_add_(1, low % 8, strength * (1 - part)).scatter_add_(1, (low + 1) % 8, strength * part)
    cell = [max(1, length // 4) for length in x.shape[2:]]
    return F.avg_pool2d(planes, cell, [max(1, length // 2) for length in cell]).flatten(1).sqrt()


def pixels(images: Tensor) -> Tensor:
    """The image itself, at most 32 pixels a side, without its mean."""
    x = _small(images, 32).flatten(1)
    return x - x.mean(dim=1, keepdim=True)


def colour(images: Tensor) -> Tensor:
    """How dark and bright each channel is: 16 quantiles of its pixels, wherever they are."""
    x = _small(images, 64).flatten(2)
    return torch.quantile(x, torch.linspace(0, 1, 16, device=x.device), dim=2).movedim(0, 2).flatten(1)


EYES: dict[str, Callable[[Tensor], Tensor]] = {"hog": hog, "pixels": pixels, "colour": colour}


@dataclass(frozen=True)
class Eye:
    """What sees the n images of a data set."""

    nearest: Callable[[int], Tensor]  # k -> the k nearest others of each image, nearest first, (n, k)
    rows: Callable[[], Tensor]  # descriptors (n, d)
    labels: Tensor  # (n,) at `hex.level`, -1 for unknown
    generator: torch.Generator  # of all that is drawn
    progress: float = 1.0  # of the run, where the eye is the network that is trained, and looks again in each epoch
    before: Tensor | None = None  # whom it found in the last epoch


@dataclass(frozen=True)
class FromTable:
    """Relatives from a table over the data set."""

    among: int = 10  # relatives of an image

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        """None: nobody is looked for among the negatives."""
        return None

    def table(self, eye: Eye) -> Tensor:
        """Numbers of each image's relatives, (n, among), -1 where there are fewer."""
        raise NotImplementedError


@dataclass(frozen=True)
class Neighbours(FromTable):
    """``neighbours``: the nearest images of the data set, as another eye sees them, or the network that is trained."""

    skip: int = 0  # the nearest ones, that many, are left out
    mutual: bool = False  # only those that count the image among theirs, too

    def table(self, eye: Eye) -> Tensor:
        found = eye.nearest(self.skip + self.among)
        if self.mutual:
            own = torch.arange(len(found), device=found.device)[:, None]
            kept = torch.stack([(found[column] == own).any(dim=1) for column in found.T], dim=1)
            found = found.masked_fill(~kept, -1)
        return found[:, self.skip :]


@dataclass(frozen=True)
class Consistent(Neighbours):
    """``consistent``: neighbours that were neighbours in the last epoch, by other augmentations (CMSF, 2112.04607)."""

    def table(self, eye: Eye) -> Tensor:
        found = super().table(eye)
        return found if eye.before is None else both(found, eye.before)


@dataclass(frozen=True)
class Shuffled(Neighbours):
    """``shuffled``: a placebo, each image gets the neighbours of another one, which is drawn."""

    def table(self, eye: Eye) -> Tensor:
        found = super().table(eye)
        return found[torch.randperm(len(found), generator=eye.generator)]


@dataclass(frozen=True)
class RandomSet(FromTable):
    """``random``: a placebo, as many images drawn at random."""

    def table(self, eye: Eye) -> Tensor:
        n = len(eye.labels)
        return torch.randint(n, (n, self.among), generator=eye.generator)


@dataclass(frozen=True)
class Oracle(FromTable):
    """``oracle``: images of the same label, drawn; what could be won at most, and how pure a rule has to be."""

    purity: float = 1.0  # share of them that have the label; the others are drawn from all images with another one

    def table(self, eye: Eye) -> Tensor:
        return drawn_alike(eye.labels, self.among, eye.generator, self.purity)


@dataclass(frozen=True)
class Clusters(FromTable):
    """``clusters``: images of the same cluster, drawn (IFND, Chen et al., 2106.03719).

    Of a cluster only those nearest to its centre count, of all images a share that grows with the run.
    """

    clusters: int = 1000
    iterations: int = 10

    def table(self, eye: Eye) -> Tensor:
        rows = unit(eye.rows().float())
        first = torch.randperm(len(rows), generator=eye.generator)[: self.clusters].to(rows.device)
        centres = spherical_kmeans(rows, rows[first], self.iterations)
        cosine, cluster = (found[:, 0] for found in nearest(rows, centres, 1))
        far = cosine.argsort()[: round((1 - eye.progress) * len(rows))]
        return drawn_alike(cluster.index_fill(0, far, -1).cpu(), self.among, eye.generator)


def drawn_alike(labels: Tensor, number: int, generator: torch.Generator, purity: float = 1.0) -> Tensor:
    """Others of the label of each image (n,), drawn with replacement, (n, number); -1 where that is unknown, -1.

    A share of ``purity`` has the label; the rest is drawn from the images with another one.
    """
    n, (ranked, order) = len(labels), labels.sort(stable=True)
    first, end = torch.searchsorted(ranked, labels), torch.searchsorted(ranked, labels, right=True)
    size, own = end - first, torch.empty_like(order).scatter_(0, order, torch.arange(n))
    u = torch.rand(3, n, number, generator=generator, dtype=torch.float64)
    place = first[:, None] + (u[0] * (size - 1)[:, None]).long()  # without the image's own place
    alike = order[(place + (place >= own[:, None])).clamp_(max=n - 1)]
    place = (u[1] * (n - size)[:, None]).long()  # without those of the label
    stranger = order[(place + (place >= first[:, None]) * size[:, None]).clamp_(max=n - 1)]
    known = (labels >= 0) & (size > 1)
    return torch.where(u[2] < purity, alike, stranger).masked_fill(~known[:, None], -1)


def both(table: Tensor, other: Tensor) -> Tensor:
    """Those of a table (n, K) that another one (n, K') has in the same row, -1 for the rest."""
    kept = torch.stack([(column[:, None] == other).any(dim=1) for column in table.T], dim=1)
    return table.masked_fill(~kept, -1)


def whom(table: Tensor, known: Tensor) -> dict[str, Tensor]:
    """Shares of relatives (n, K) that are of the same class, siblings, strangers, by class and group (n, 2)."""
    row, column = (table >= 0).nonzero(as_tuple=True)
    return shares(kinship(known, known, (row, table[row, column].long())))


def kinship(one: Tensor, other: Tensor, pairs: tuple[Tensor, ...]) -> Tensor:
    """How many pairs, K places in `one` and K in the `other`, are of one class, siblings, strangers, and known, (4,).

    By class and group, -1 for unknown, of rows (M, 2) and of those they are paired with (N, 2).
    """
    a, b = one[pairs[0]], other[pairs[1]]
    known, alike = ((a >= 0) & (b >= 0)).all(dim=1), a == b
    own = known & alike[:, 0]
    siblings = known & ~alike[:, 0] & alike[:, 1]
    return torch.stack([own.sum(), siblings.sum(), (known & ~own & ~siblings).sum(), known.sum()])


def shares(counts: Tensor) -> dict[str, Tensor]:
    """What `kinship` counted, as shares; nothing where nobody is known."""
    if not counts[3] > 0:
        return {}
    return dict(zip(("own_class", "siblings", "strangers"), counts[:3] / counts[3], strict=True))


class Bank(nn.Module):
    """The last embedding of every image of the data set, in half precision, the same on all processes.

    It is an extra state of checkpoints, and no buffer, which DDP would send from process to process in each step.
    """

    def __init__(self, drawn: int, mix: float = 0.0) -> None:
        super().__init__()
        self.drawn = drawn  # how many relatives of an image are drawn in a step
        self.mix = mix  # how much of each is the image's own embedding
        self.table = torch.empty(0, 1, dtype=torch.int32)  # (n, K) relatives of each image, -1 for none
        self.labels: Tensor = torch.empty(0)  # (n,) at `hex.level`
        self.known: Tensor = torch.empty(0, 2)  # (n, 2) class and group
        self.found: dict[str, Tensor] = {}  # how many relatives are of the same class, siblings, strangers
        self.live = False  # the table is that of the network that is trained
        self.rows: Tensor | None = None
        self._found = -1  # in which epoch the table was found, where it is live

    @torch.no_grad()
    def look(self, policy: FromTable, epoch: int, max_epochs: int) -> None:
        """Find relatives anew, by the embeddings of the last epoch, if the epoch is a new one."""
        if not self.live or self.rows is None or epoch == self._found:
            return
        rows, before = self.rows, self.table if self._found >= 0 else None
        generator, progress = torch.Generator().manual_seed(epoch), epoch / max_epochs
        see = Eye(lambda k: nearest_others(rows.float(), k)[1], lambda: rows, self.labels, generator, progress, before)
        self.use(policy.table(see))
        self._found = epoch

    def use(self, table: Tensor) -> None:
        self.table = table.to(torch.int32)
        if len(self.known):
            self.found = whom(table, self.known.to(table.device))

    @torch.no_grad()
    def draw(self, ids: Tensor, own: Tensor) -> Elsewhere | None:
        """Embeddings of some relatives of each image (B,), (B, k, D); None before any is known.

        ``own`` are the images' own embeddings (B, D), of any length, for `mix`.
        """
        if self.rows is None:
            return None
        self.table = self.table.to(ids.device)
        found = self.table[ids]
        order = torch.rand(found.shape, device=ids.device).masked_fill_(found < 0, -1)
        found = found.gather(1, order.topk(min(self.drawn, found.shape[1]), dim=1).indices)
        rows = unit(self.rows[found.clamp_min(0).long()])
        known = (found >= 0) & (rows != 0).any(dim=2)
        return Elsewhere(unit(rows.lerp(unit(own)[:, None], self.mix)) if self.mix else rows, known)

    @torch.no_grad()
    def store(self, ids: Tensor, embeddings: Tensor) -> None:
        """Keep embeddings (B, D), of any length, of images (B,), those of all processes."""
        ids, embeddings = distributed.gather_each(ids, unit(embeddings).half())
        if self.rows is None:
            self.rows = embeddings.new_zeros(len(self.table), embeddings.shape[1])
        self.rows = self.rows.to(ids.device)
        self.rows[ids] = embeddings

    def get_extra_state(self) -> Any:
        rows = torch.empty(0) if self.rows is None else self.rows
        return (rows, self.table, self._found) if self.live else rows

    def set_extra_state(self, state: Any) -> None:
        if isinstance(state, tuple):
            state, self.table, self._found = state
        self.rows = state if len(state) else None
