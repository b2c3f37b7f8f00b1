"""The losses of solo-learn as one table: inputs, a loop-written float64 reference, and how a batch is split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solo import losses
from solo.args.schema import HexCfg
from solo.hex import hex_nce
from solo.hex.catalogue import POLICIES, named
from solo.hex.objective import Hex, Step
from solo.hex.rows import Elsewhere
from tests.losses import hierarchical_reference, reference
from tests.losses.reference import who_is_found

N, D, K = 6, 4, 9  # batch of one process, features, entries of a queue


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def cos(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.norm() * b.norm())


def entropy(target: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy of one row."""
    total = sum(torch.exp(x) for x in logits)
    return -sum(t * torch.log(torch.exp(x) / total) for t, x in zip(target, logits, strict=True))


def softmax(logits: Tensor) -> Tensor:
    return torch.exp(logits) / torch.exp(logits).sum()


def mean(values: list[Tensor]) -> Tensor:
    return sum(values) / len(values)


def one_hot(index: int, size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)[index]


def features(z: Tensor) -> list[Tensor]:
    """Centred columns."""
    return [z[:, i] - mean(list(z[:, i])) for i in range(z.shape[1])]


def barlow(z1: Tensor, z2: Tensor) -> Tensor:
    a, b = ([f / torch.sqrt(mean(list(f * f)) + 1e-5) for f in features(z)] for z in (z1, z2))
    total = 0
    for i in range(len(a)):
        for j in range(len(b)):
            c = mean(list(a[i] * b[j]))
            total = total + ((c - 1) ** 2 if i == j else 5e-3 * c**2)
    return 0.025 * total


def similarity_and_variance(z1: Tensor, z2: Tensor) -> Tensor:
    total = 25 * mean([(x - y) ** 2 for x, y in zip(z1.flatten(), z2.flatten(), strict=True)])
    for z in (z1, z2):
        deviations = [torch.sqrt((f * f).sum() / (len(z) - 1) + 1e-4) for f in features(z)]
        total = total + 25 * mean([torch.relu(1 - s) for s in deviations])
    return total


def off_pairs(z: Tensor, entry: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    f = features(z)
    return sum(entry(f[i], f[j]) ** 2 for i in range(len(f)) for j in range(len(f)) if i != j)


def vicreg(z1: Tensor, z2: Tensor) -> Tensor:
    off = [off_pairs(z, lambda x, y: (x * y).sum() / (len(z1) - 1)) / z1.shape[1] for z in (z1, z2)]
    return similarity_and_variance(z1, z2) + sum(off)


def vibcreg(z1: Tensor, z2: Tensor) -> Tensor:
    return similarity_and_variance(z1, z2) + 200 * sum(off_pairs(z, cos) / z1.shape[1] ** 2 for z in (z1, z2))


def nnclr(nn: Tensor, p: Tensor, temperature: float = 0.1) -> Tensor:
    rows = [torch.stack([cos(row, key) / temperature for key in p]) for row in nn]
    return mean([entropy(one_hot(i, len(p)), row) for i, row in enumerate(rows)])


def mocov2plus(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    logits = [torch.stack([q @ k, *(q @ column for column in queue.T)]) / 0.1 for q, k in zip(query, key, strict=True)]
    return mean([entropy(one_hot(0, len(row)), row) for row in logits])


def ressl(q: Tensor, k: Tensor, queue: Tensor) -> Tensor:
    return mean([entropy(softmax(queue @ b / 0.04), queue @ a / 0.1) for a, b in zip(q, k, strict=True)])


def swav(preds: Tensor, assignments: Tensor) -> Tensor:
    pairs = [(a, b) for a in range(len(assignments)) for b in range(len(preds)) if a != b]
    rows = range(preds.shape[1])
    return mean([mean([entropy(assignments[a, n], preds[b, n] / 0.1) for n in rows]) for a, b in pairs])


def dino(student: Tensor, teacher: Tensor) -> Tensor:
    return swav(student, torch.stack([torch.stack([softmax(t / 0.5) for t in view]) for view in teacher]))


def dino_func(student: Tensor, teacher: Tensor) -> Tensor:
    """DINO on (V, N, P) outputs; in its first step the centre is 0."""
    module = losses.DINOLoss(student.shape[-1], 0.5, 0.7, 10, 20, num_large_crops=len(student))
    return module(student.flatten(0, 1), teacher.flatten(0, 1))


def deepclusterv2(outputs: Tensor, assignments: Tensor) -> Tensor:
    total = []
    for logits, clusters in zip(outputs, assignments, strict=True):
        kept = [(row, int(c)) for view in logits for row, c in zip(view, clusters, strict=True) if c >= 0]
        total.append(mean([entropy(one_hot(c, len(row)), row / 0.1) for row, c in kept]))
    return mean(total)


def mae(pred: Tensor, imgs: Tensor, mask: Tensor) -> Tensor:
    side, errors = imgs.shape[-1] // 2, []
    for n, place in mask.nonzero().tolist():
        top, left = 2 * (place // side), 2 * (place % side)
        patch = torch.stack([imgs[n, c, top + i, left + j] for i in range(2) for j in range(2) for c in range(3)])
        patch = (patch - patch.mean()) / torch.sqrt(((patch - patch.mean()) ** 2).sum() / (len(patch) - 1) + 1e-6)
        errors.append(mean(list((pred[n, place] - patch) ** 2)))
    return mean(errors)


def lejepa(z: Tensor, directions: Tensor) -> Tensor:
    """The first two views are large."""
    views, rows, width = z.shape
    centres = [[mean([z[v, n, d] for v in range(2)]) for d in range(width)] for n in range(rows)]
    apart = [(z[v, n, d] - centres[n][d]) ** 2 for v in range(views) for n in range(rows) for d in range(width)]
    statistics = []
    for view in z:
        for a in directions.T:
            x = [row @ a / torch.sqrt(a @ a) for row in view]
            for k in range(-16, 17):  # the trapezoids of [-3, 3]
                t, share = 3 * k / 16, 0.5 if abs(k) == 16 else 1.0
                gauss = torch.exp(torch.tensor(-(t**2) / 2, dtype=torch.float64))
                real, imaginary = mean([torch.cos(t * v) for v in x]), mean([torch.sin(t * v) for v in x])
                statistics.append(rows * share * 3 / 16 * ((real - gauss) ** 2 + imaginary**2) * gauss)
    return 0.8 * mean(apart) + 0.2 * sum(statistics) / (views * directions.shape[1])


def frossl(z: Tensor) -> Tensor:
    views, rows, width = z.shape
    u = [torch.stack([c / torch.sqrt(c @ c) for c in view.T], dim=1) for view in z]
    total = 0
    for view in u:
        entries = [[view[:, i] @ view[:, j] for j in range(width)] for i in range(width)]
        trace = sum(entries[i][i] for i in range(width))
        total = total + torch.log(sum((x / trace) ** 2 for row in entries for x in row))
        apart = [(view[n, d] - mean([w[n, d] for w in u])) ** 2 for n in range(rows) for d in range(width)]
        total = total + 3 * views * width * mean(apart)
    return total


def siglip_func(z1: Tensor, z2: Tensor) -> Tensor:
    return losses.siglip_loss_func(z1, z2, torch.tensor(1.5, dtype=z1.dtype), torch.tensor(-2.0, dtype=z1.dtype))


def siglip(z1: Tensor, z2: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    terms = []
    for i, a in enumerate(z1):
        signs = [1 if i == j else -1 for j in range(len(z2))]
        logits = [torch.exp(log_scale) * cos(a, b) + bias for b in z2]
        terms.append(-sum(torch.log(1 / (1 + torch.exp(-y * x))) for y, x in zip(signs, logits, strict=True)))
    return mean(terms)


def ijepa(pred: Tensor, target: Tensor) -> Tensor:
    errors = []
    for row, wanted in zip(pred.flatten(0, 1), target.flatten(0, 1), strict=True):
        middle = mean(list(wanted))
        wide = torch.sqrt(mean(list((wanted - middle) ** 2)) + 1e-5)
        off = [abs(x - (y - middle) / wide) for x, y in zip(row, wanted, strict=True)]
        errors += [e * e / 2 if e < 1 else e - 0.5 for e in off]
    return mean(errors)


def ibot(scores: Tensor, assignments: Tensor) -> Tensor:
    return mean([entropy(a, s / 0.1) for a, s in zip(assignments, scores, strict=True)])


def koleo(z: Tensor) -> Tensor:
    rows = [row / row.norm() for row in z]
    near = [min((a - b).square().sum() for j, b in enumerate(rows) if j != i) for i, a in enumerate(rows)]
    return mean([-torch.log(torch.sqrt(d + 1e-8)) for d in near])


@dataclass
class Case:
    """A loss of ``inputs``: the first ``moving`` get gradient; ``batch`` gives the batch dimension of each or None."""

    func: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    make: Callable[[int], tuple[Tensor, ...]]
    moving: int = 1
    batch: tuple[int | None, ...] = (0, 0)

    def inputs(self, rows: int = N, seed: int = 0) -> tuple[Tensor, ...]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.make(rows)


def two(n: int) -> tuple[Tensor, Tensor]:
    return randn(n, D), randn(n, D)


def two_with_queue(n: int) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.nn.functional.normalize(z) for z in (randn(n, D), randn(n, D), randn(K, D)))


def assigned(n: int) -> tuple[Tensor, Tensor]:
    clusters = torch.randint(0, D, (3, n))
    clusters[0, :2] = clusters[1, -1] = -1
    return randn(3, 2, n, D), clusters


def masked(n: int) -> tuple[Tensor, Tensor, Tensor]:
    return randn(n, 4, 12), randn(n, 3, 4, 4), (torch.rand(n, 4).argsort(dim=1) < 3).double()


def views_with_labels(n: int) -> tuple[Tensor, Tensor]:
    labels = hierarchical_reference.random_labels(n, 3, missing=0.2, seed=n)
    return randn(n, 2, D), torch.cat((labels, torch.arange(n)[:, None]), dim=1)


def views_with_all_labels(n: int) -> tuple[Tensor, Tensor]:
    labels = hierarchical_reference.random_labels(n, 3, missing=0, seed=n)
    return randn(n, 2, D), torch.cat((labels, torch.arange(n)[:, None]), dim=1)


def hierarchical_case(kind: str, cumulative: bool = False) -> Case:
    return Case(
        losses.HierarchicalContrastiveLoss(kind, 0.3, pairs="cumulative" if cumulative else "lca"),
        lambda z, y: hierarchical_reference.hierarchical(z, y, kind, 0.3, "released", cumulative),
        views_with_labels,
    )


def hex_himulcon(z: Tensor, labels: Tensor) -> Tensor:
    pairs = losses.Pairs.from_views(z.unbind(1), groups=labels[:, 0])
    plug = Hex(HexCfg(policy="adaptive", quantile=0.7, warm_epoch=0, named=True), 0.3)
    denominator = plug.denominator(pairs, Step(0, 1))
    labels = labels.repeat(z.shape[1], 1)
    return losses.hierarchical_contrastive_loss(pairs, labels, "himulcon", 0.3, denominator=denominator)


def grouped_with_relatives(n: int) -> tuple[Tensor, Tensor, Tensor]:
    return randn(n, 2, D), torch.arange(n) % 3 - 1, torch.nn.functional.normalize(randn(n, 3, D), dim=2)


def queue_with_relatives(n: int) -> tuple[Tensor, ...]:
    return *two_with_queue(n), torch.arange(n) % 4 - 1, torch.nn.functional.normalize(randn(n, 3, D), dim=2)


def relatives(settings: HexCfg, queue: bool = False) -> Case:
    """A row of the table of policies: relatives in the batch or a queue, and where a bank has them, in that."""
    made = Hex(settings, 0.3)
    assert isinstance(made, Hex)
    relative, views = settings.variant == "relative", 1 if queue else 2

    def pairs_of(*rows: Tensor) -> losses.Pairs:
        if queue:
            q, k, others, groups = rows
            return losses.Pairs.with_queue(q, k, others, groups, torch.arange(len(others)) % 3)
        return losses.Pairs.from_views(rows[0].unbind(1), groups=rows[1])

    def elsewhere(far: Tensor) -> Elsewhere | None:
        known = (far[..., 0] > -0.3).repeat(views, 1)
        return None if made.bank is None else Elsewhere(far.repeat(views, 1, 1), known)

    def func(*inputs: Tensor) -> Tensor:
        pairs, far = pairs_of(*inputs[:-1]), elsewhere(inputs[-1])
        words: dict[str, Any] = {"beta": 1.0, "tau_plus": 0.1, "relative": relative, "epoch": 1, "max_epochs": 1}
        return hex_nce(pairs, made.policy, temperature=0.3, action=made.action, kin=made.kin, elsewhere=far, **words)[0]

    def loops(*inputs: Tensor) -> Tensor:
        z = inputs[0] if queue else torch.cat(inputs[0].unbind(1))
        keys = torch.cat(inputs[1:3]) if queue else z
        groups = inputs[-2].repeat(views)
        others = torch.cat([groups, torch.arange(K) % 3]) if queue else groups
        unit = [torch.nn.functional.normalize(x.detach()) for x in (z, keys)]
        sets = [
            torch.zeros(len(z), len(keys)) if name is None else who_is_found(name, *unit, (groups, others), queue)
            for name in (settings.policy, settings.kin and named(settings.kin))
        ]
        rest = (made.action, 0.3, 1.0, 0.1, elsewhere(inputs[-1]), relative, keys if queue else None)
        return reference.relatives_loss(z, torch.arange(len(z) // views).repeat(views), *sets, *rest)

    if queue:
        return Case(func, loops, queue_with_relatives, batch=(0, 0, None, 0, 0))
    return Case(func, loops, grouped_with_relatives, batch=(0, 0, 0))


def labelled_logits(n: int) -> tuple[Tensor, Tensor]:
    return randn(n, D), torch.arange(n) % (D + 1) - 1


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    kept = [(row, int(t)) for row, t in zip(logits, targets, strict=True) if t >= 0]
    return mean([entropy(one_hot(t, len(row)), row) for row, t in kept])


def cosine_case(func: Callable[..., Tensor], scale: float, offset: float, moving: int = 1) -> Case:
    return Case(func, lambda a, b: offset - scale * mean([cos(x, y) for x, y in zip(a, b, strict=True)]), two, moving)


CASES = {
    "barlow": Case(losses.barlow_loss_func, barlow, two, 2),
    "byol": cosine_case(losses.byol_loss_func, 2, 2),
    "byol full": cosine_case(lambda p, z: losses.byol_loss_func(p, z, simplified=False), 2, 2),
    "simsiam": cosine_case(losses.simsiam_loss_func, 1, 0),
    "wmse": cosine_case(losses.wmse_loss_func, 2, 2),
    "wmse full": cosine_case(lambda a, b: losses.wmse_loss_func(a, b, simplified=False), 2, 2, 2),
    "vicreg": Case(losses.vicreg_loss_func, vicreg, two, 2),
    "vibcreg": Case(losses.vibcreg_loss_func, vibcreg, two, 2),
    "lejepa": Case(
        lambda z, a: losses.lejepa_loss_func(z, a, 0.2), lejepa, lambda n: (randn(3, n, D), randn(D, 5)), 1, (1, None)
    ),
    "frossl": Case(lambda z: losses.frossl_loss_func(z, 3.0), frossl, lambda n: (randn(3, n, D),), 1, (1,)),
    "frossl wide": Case(lambda z: losses.frossl_loss_func(z, 3.0), frossl, lambda n: (randn(2, n, 15),), 1, (1,)),
    "siglip": Case(siglip_func, lambda a, b: siglip(a, b, torch.tensor(1.5).double(), -2), two, 2),
    "nnclr": Case(losses.nnclr_loss_func, nnclr, two, 2),
    "mocov3": Case(losses.mocov3_loss_func, lambda q, k: 0.4 * nnclr(q, k, 0.2), two),
    "mocov2plus": Case(
        lambda q, k, queue: losses.mocov2plus_loss_func(q, k, queue.T),
        lambda q, k, queue: mocov2plus(q, k, queue.T),
        two_with_queue,
        batch=(0, 0, None),
    ),
    "ressl": Case(losses.ressl_loss_func, ressl, two_with_queue, batch=(0, 0, None)),
    "swav": Case(losses.swav_loss_func, swav, lambda n: (randn(4, n, D), randn(2, n, D).softmax(-1)), batch=(1, 1)),
    "ijepa": Case(losses.ijepa_loss_func, ijepa, lambda n: (2 * randn(n, 3, D), randn(n, 3, D))),
    "ibot": Case(losses.ibot_loss_func, ibot, lambda n: (randn(n, D), randn(n, D).softmax(dim=1))),
    "koleo": Case(losses.koleo_loss_func, koleo, lambda n: (randn(n, D),), batch=(0,)),
    "dino": Case(dino_func, dino, lambda n: (randn(2, n, D), randn(2, n, D)), batch=(1, 1)),
    "dino three": Case(dino_func, dino, lambda n: (randn(3, n, D), randn(3, n, D)), batch=(1, 1)),
    "deepclusterv2": Case(losses.deepclusterv2_loss_func, deepclusterv2, assigned, batch=(2, 1)),
    "himulcon": hierarchical_case("himulcon"),
    "hicone": hierarchical_case("hicone"),
    "himulcone": hierarchical_case("himulcone"),
    "himulcone cumulative": hierarchical_case("himulcone", cumulative=True),
    "himulcone layers": Case(
        losses.HierarchicalContrastiveLoss(temperature=0.3, granularity="layer"),
        lambda z, y: hierarchical_reference.released(z, y, "himulcone", 0.3),
        views_with_all_labels,
    ),
    "himulcon with HEX": Case(
        hex_himulcon,
        lambda z, y: hierarchical_reference.hex_himulcon(z, y, 0.3, 0.7, beta=1.0, tau_plus=0.1),
        views_with_labels,
    ),
    "relatives pulled": relatives(HexCfg(policy="coarse", share=0.5, denominator="own")),
    "relatives dropped": relatives(HexCfg(policy="superclass", warm_epoch=0, action="drop", denominator="negatives")),
    "relatives in a queue": relatives(HexCfg(policy="neighbours", share=0.4), queue=True),
    "cross entropy": Case(losses.cross_entropy_loss_func, cross_entropy, labelled_logits),
    "mae": Case(lambda p, x, m: losses.mae_loss_func(x, p, m, 2), mae, masked, batch=(0, 0, 0)),
}

# Each row of the table of policies, and what is set beside it where that makes another row; settings of some.
_BESIDE: dict[str, list[dict[str, Any]]] = {
    "adaptive": [{"variant": "release"}, {"variant": "relative"}, {"action": "drop", "denominator": "own"}],
    "coarse": [{"share": 0.5}, {"denominator": "inside"}, {"kin": "HEX_adaptive"}],
    "fnc": [{"action": "pull"}],
}
_KWARGS = {"fnc": {"nearest": 3, "least": 0.0}, "ring": {"low": 0.3, "high": 0.7}}
TABLE = {
    f"{' '.join([name, *map(str, more.values())])}{' in a queue' * queue}": relatives(
        HexCfg(
            policy=name,
            warm_epoch=0,
            quantile=0.7,
            distance_thresh=0.6,
            policy_kwargs=_KWARGS.get(name, {}),
            **more,
        ),
        queue,
    )
    for name, facts in POLICIES.items()
    for more in ({}, *_BESIDE.get(name, []))
    for queue in (False, True)
    if facts.path and not (facts.rows and queue)
}
