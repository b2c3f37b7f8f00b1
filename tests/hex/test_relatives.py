"""Whatever is done with relatives against loops in float64; who they are against loops; the bank."""

from __future__ import annotations

import math

import pytest
import torch

from solo.args.schema import HexCfg
from solo.hex import AdaptivePercentile, EveryNegative, NoNegative, Superclass, hex_nce
from solo.hex.eyes import EYES
from solo.hex.loss import Action, Elsewhere
from solo.hex.objective import Step, build_objective
from solo.hex.relatives import Bank, Neighbours, Oracle, RandomSet, Shuffled
from solo.losses import Pairs
from solo.losses import pairs as pairs_module
from tests.losses.reference import cosines

FINDERS = {
    "adaptive": AdaptivePercentile(quantile=0.6, warm_epoch=0),
    "groups": Superclass(),
    "everybody": EveryNegative(),
    "nobody": NoNegative(),
}
ACTIONS = [
    Action(name, denominator, share)
    for name, shares in {"weigh": (0.5,), "drop": (0.5,), "keep": (0.5,), "pull": (0.0, 0.3, 1.0, None)}.items()
    for denominator in ("own", "negatives", "all")
    for share in shares
]


def loops(z, ids, chosen, kin, action, tau, beta, tau_plus, elsewhere=None):
    """The loss as its docstrings state it: one anchor, one positive, one denominator at a time."""
    s, losses = cosines(z), []
    unit = z / z.norm(dim=1, keepdim=True)
    for i in range(len(z)):
        positives = [j for j in range(len(z)) if j != i and ids[j] == ids[i]]
        found = [j for j in range(len(z)) if ids[j] != ids[i] and chosen[i, j]]
        siblings = [j for j in range(len(z)) if ids[j] != ids[i] and kin[i, j] and j not in found]
        hierarchy = siblings + (found if action.name == "weigh" else [])
        gone = found if action.name in ("drop", "pull") else []
        rest = [j for j in range(len(z)) if ids[j] != ids[i] and j not in gone and j not in hierarchy]
        if action.denominator == "all":
            rest = [j for j in range(len(z)) if j != i and j not in hierarchy]
        outside = sum((torch.exp(s[i, j] / tau) for j in rest), torch.zeros(()).double())
        raised = [torch.exp(beta * s[i, h] / tau) for h in hierarchy]
        inside = torch.zeros(()).double()
        for h, weight in zip(hierarchy, raised, strict=True):
            inside = inside + weight / (sum(raised) / len(raised)) * torch.exp(s[i, h] / tau)

        def ell(top, outside=outside, inside=inside, hierarchy=hierarchy):
            number = len(hierarchy)
            floor = torch.tensor(number * math.exp(-1 / tau)).double()
            local = torch.maximum((inside - tau_plus * number * top) / (1 - tau_plus), floor)
            bottom = outside + local + (top if action.denominator == "own" else 0)
            return (torch.log(bottom) if bottom > 0 else 0) - torch.log(top)

        tops = [torch.exp(s[i, j] / tau) for j in found]
        if elsewhere is not None:
            known = zip(elsewhere.rows[i], elsewhere.known[i], strict=True)
            tops += [torch.exp((unit[i] * row).sum() / tau) for row, there in known if there]
        own = [ell(torch.exp(s[i, p] / tau)) for p in positives]
        pulled = [ell(top) for top in tops] if action.name == "pull" else []
        if action.share is None:
            losses.append(sum(own + pulled) / len(own + pulled))
        elif pulled:
            losses.append((1 - action.share) * sum(own) / len(own) + action.share * sum(pulled) / len(pulled))
        else:
            losses.append(sum(own) / len(own))
    return sum(losses) / len(losses)


def batch(n=16, d=4, classes=8):
    torch.manual_seed(3)
    z = torch.randn(n, d, dtype=torch.float64, requires_grad=True)
    ids = torch.arange(n) % classes
    rows = torch.nn.functional.normalize(torch.randn(n, 3, d, dtype=torch.float64), dim=2)
    return z, ids, Elsewhere(rows, torch.rand(n, 3) < 0.6)


def chosen(policy, pairs):
    rows = slice(0, len(pairs.anchors))
    return policy.selector(pairs, 0, 1)(pairs.similarity(rows), rows) & pairs.masks(rows)[1]


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("action", ACTIONS, ids=str)
@pytest.mark.parametrize("extra", [False, True])
def test_every_action_equals_the_loops(finder, action, extra, monkeypatch):
    z, ids, elsewhere = batch()
    pairs = Pairs.from_ids(z, ids, groups=ids % 3)
    kin = AdaptivePercentile(quantile=0.4, warm_epoch=0)
    both = (chosen(FINDERS[finder], pairs), chosen(kin, pairs) if extra else torch.zeros(16, 16, dtype=torch.bool))
    far = elsewhere if extra and action.name == "pull" else None
    expected = loops(z, ids, *both, action, 0.5, 1.5, 0.05, far)
    monkeypatch.setitem(pairs_module.BLOCK_ELEMENTS, "cpu", 80)  # five rows at a time
    settings = {"temperature": 0.5, "beta": 1.5, "tau_plus": 0.05, "action": action, "elsewhere": far}
    loss, _ = hex_nce(pairs, FINDERS[finder], kin=kin if extra else None, **settings)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    gradients = (torch.autograd.grad(value, z, retain_graph=True)[0] for value in (loss, expected))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)


def test_coarse_labels_that_pull_are_supervised_contrast_as_published():
    """Khosla et al., equation 2: each other view and image of the group has the same share, all are in the sum."""
    z, ids, _ = batch()
    groups, s = ids % 3, cosines(z) / 0.2
    expected = torch.zeros(()).double()
    for i in range(16):
        others = [j for j in range(16) if j != i]
        alike = [j for j in others if groups[j] == groups[i]]
        log_sum = torch.logsumexp(s[i, others], dim=0)
        expected = expected + sum(log_sum - s[i, p] for p in alike) / len(alike) / 16
    objective = build_objective(HexCfg(policy="coarse"), 0.2)
    loss = objective.replace(None, Pairs.from_ids(z, ids, groups), Step(0, 1))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(("variant", "words"), [({"name": "push"}, "action"), ({"denominator": "x"}, "denominator")])
def test_unknown_actions_are_named(variant, words):
    with pytest.raises(ValueError, match=words):
        Action(**variant)


def nearest(k):
    return TABLE[:, :k]


TABLE = torch.stack([torch.randperm(39)[:12] for _ in range(40)])
TABLE += TABLE >= torch.arange(40)[:, None]  # nobody is his own neighbour


def made(policy, labels=None, seed=0):
    labels = torch.arange(40) % 5 if labels is None else labels
    return policy.table(nearest, labels, torch.Generator().manual_seed(seed))


def test_neighbours_skip_the_first_and_keep_whom_both_sides_count():
    assert torch.equal(made(Neighbours(among=5, skip=2)), TABLE[:, 2:7])
    found = made(Neighbours(among=12, mutual=True))
    for i in range(40):
        for k in range(12):
            back = i in TABLE[TABLE[i, k]].tolist()
            assert found[i, k] == (TABLE[i, k] if back else -1)


def test_placebos_are_as_large_and_have_nothing_to_do_with_the_image():
    shuffled = made(Shuffled(among=6))
    assert sorted(shuffled.tolist()) == sorted(TABLE[:, :6].tolist())
    assert (shuffled == TABLE[:, :6]).float().mean() < 0.3
    assert made(RandomSet(among=6)).shape == (40, 6)
    assert not torch.equal(made(RandomSet(6)), made(RandomSet(6), seed=1))


@pytest.mark.parametrize("purity", [0.0, 0.4, 1.0])
def test_the_oracle_is_as_pure_as_its_dial_says(purity):
    labels = torch.arange(40) % 5
    labels[7], labels[8] = -1, 99  # nothing is known of one, and another is alone
    found = made(Oracle(among=500, purity=purity), labels)
    assert (found[[7, 8]] == -1).all()
    rest = [i for i in range(40) if i not in (7, 8)]
    assert not (found[rest] == torch.tensor(rest)[:, None]).any()
    alike = (labels[found[rest]] == labels[rest][:, None]).float().mean()
    assert alike == purity if purity in (0, 1) else abs(alike - purity) < 0.02
    assert set(found[0].tolist()) >= {5, 10, 15, 20, 25, 30, 35} if purity == 1 else True


def test_the_bank_remembers_the_last_embedding_of_each_image():
    bank = Bank(torch.tensor([[1, 2], [2, -1], [-1, -1]]), drawn=4)
    assert bank.draw(torch.tensor([0])) is None
    rows = torch.randn(3, 5)
    bank.store(torch.tensor([2, 1]), rows[[2, 1]])
    other = Bank(bank.table, drawn=4)
    other.load_state_dict(bank.state_dict())
    for each in (bank, other):
        drawn = each.draw(torch.tensor([0, 1, 2]))
        assert drawn.known.sum(dim=1).tolist() == [2, 1, 0]
        torch.testing.assert_close(drawn.rows[1][drawn.known[1]][0], rows[2] / rows[2].norm(), atol=1e-3, rtol=0)


def test_relatives_of_the_bank_pull_after_the_warm_up():
    objective = build_objective(HexCfg(policy="neighbours", drawn=1, warm_epoch=1), 0.2)
    objective.bank.table = torch.tensor([[1], [0], [3], [2]])
    z = torch.randn(8, 4, requires_grad=True)

    class Located(Step):
        ids = torch.arange(4)

    pairs = Pairs.from_views(z.split(4))
    plain = build_objective(HexCfg(policy="infonce"), 0.2).replace(None, pairs, Located(0, 3))
    assert torch.equal(objective.replace(None, pairs, Located(0, 3)), plain)
    kept = objective.bank.rows.float()
    loss = objective.replace(None, pairs, Located(1, 3))
    far = Elsewhere(kept[[1, 0, 3, 2]].repeat(2, 1)[:, None], torch.ones(8, 1, dtype=torch.bool))
    expected = loops(z.double(), Located.ids.repeat(2), *torch.zeros(2, 8, 8).bool(), Action("pull"), 0.2, 1, 0, far)
    torch.testing.assert_close(loss.double(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (3, 96, 80)])
def test_eyes_see_what_differs(eye, shape):
    torch.manual_seed(0)
    images = torch.rand(3, *shape).repeat(2, 1, 1, 1) + 0.01 * torch.rand(6, *shape)
    seen = EYES[eye](images)
    assert seen.shape[0] == 6 and seen.isfinite().all()
    seen = torch.nn.functional.normalize(seen - seen.mean(dim=0), dim=1)
    assert (seen @ seen.T).fill_diagonal_(-1).argmax(dim=1).tolist() == [3, 4, 5, 0, 1, 2]


def test_hog_tells_orientations_apart():
    upright = torch.zeros(1, 1, 16, 16)
    upright[..., 8:] = 1
    both = EYES["hog"](torch.cat([upright, upright.mT])).unflatten(1, (8, -1)).sum(dim=2)
    assert both[0].argmax() == 0 and both[1].argmax() == 4
