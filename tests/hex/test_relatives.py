"""Whatever is done with relatives against loops in float64; who they are against loops; the bank."""

from __future__ import annotations

import pytest
import torch

from solo.args.schema import HexCfg
from solo.hex import AdaptivePercentile, EveryNegative, NoNegative, Superclass, hex_nce
from solo.hex.objective import Hex, Step, gradient_cosine, whom_it_found
from solo.hex.policy import Components, FalseNegatives, Ring
from solo.hex.relatives import EYES, Bank, Clusters, Consistent, Eye, Neighbours, Oracle, RandomSet, Shuffled, both
from solo.hex.rows import Action, Elsewhere
from solo.losses import Pairs, info_nce
from solo.losses import pairs as pairs_module
from tests.losses.reference import cosines, relatives_loss
from tests.losses.zoo import TABLE

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
] + [
    Action("pull", "inside", 0.4),
    Action("pull", "inside", None),
    Action("pull", "all", 0.4, 0.3),
    Action("pull", "own", 0.4, 0.3, confident=True),
]


def batch(n=10, d=4, classes=5):
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
@pytest.mark.sampled(4)
def test_every_action_equals_the_relatives_loss(finder, action, extra, monkeypatch):
    z, ids, elsewhere = batch()
    pairs = Pairs.from_ids(z, ids, groups=ids % 3)
    kin = AdaptivePercentile(quantile=0.4, warm_epoch=0)
    sets = (chosen(FINDERS[finder], pairs), chosen(kin, pairs) if extra else torch.zeros(10, 10, dtype=torch.bool))
    far = elsewhere if extra and action.name == "pull" else None
    expected = relatives_loss(z, ids, *sets, action, 0.5, 1.5, 0.05, far, extra)
    monkeypatch.setitem(pairs_module.BLOCK_ELEMENTS, "cpu", 40)  # four rows at a time
    settings = {
        "temperature": 0.5,
        "beta": 1.5,
        "tau_plus": 0.05,
        "action": action,
        "elsewhere": far,
        "relative": extra,
    }
    loss, _ = hex_nce(pairs, FINDERS[finder], kin=kin if extra else None, **settings)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    gradients = (torch.autograd.grad(value, z, retain_graph=True)[0] for value in (loss, expected))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", TABLE)
def test_every_row_of_the_table_equals_the_loops(name):
    """Whom it finds and what is done with these, in a batch and a queue; test_losses_distributed: on two processes."""
    case = TABLE[name]
    inputs, twin = ([x.clone().requires_grad_(not i) for i, x in enumerate(case.inputs())] for _ in range(2))
    loss, expected = case.func(*inputs), case.reference(*twin)
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(v, x[0])[0] for v, x in ((loss, inputs), (expected, twin))))


def test_coarse_labels_that_pull_are_supervised_contrast_as_published():
    """Khosla et al., equation 2: each other view and image of the group has the same share, all are in the sum."""
    z, ids, _ = batch()
    groups, s = ids % 3, cosines(z) / 0.2
    expected = torch.zeros(()).double()
    for i in range(10):
        others = [j for j in range(10) if j != i]
        alike = [j for j in others if groups[j] == groups[i]]
        log_sum = torch.logsumexp(s[i, others], dim=0)
        expected = expected + sum(log_sum - s[i, p] for p in alike) / len(alike) / 10
    objective = Hex(HexCfg(policy="coarse"), 0.2)
    loss = objective.replace(None, Pairs.from_ids(z, ids, groups), Step(0, 1))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(("variant", "words"), [({"name": "push"}, "action"), ({"denominator": "x"}, "denominator")])
def test_unknown_actions_are_named(variant, words):
    with pytest.raises(ValueError, match=words):
        Action(**variant)


NEIGHBOURS = torch.stack([torch.randperm(39)[:12] for _ in range(40)])
NEIGHBOURS += NEIGHBOURS >= torch.arange(40)[:, None]  # nobody is his own neighbour


def made(policy, labels=None, seed=0, **more):
    labels = torch.arange(40) % 5 if labels is None else labels
    eye = Eye(lambda k: NEIGHBOURS[:, :k], lambda: ROWS, labels, torch.Generator().manual_seed(seed), **more)
    return policy.table(eye)


CENTRES = torch.eye(8)[:4].repeat_interleave(10, dim=0)
ROWS = CENTRES + torch.linspace(0, 0.3, 10).repeat(4)[:, None] * torch.eye(8)[4]

# A seed that starts k-means with a row of each cluster.
START = next(
    k
    for k in range(99)
    if len({i // 10 for i in torch.randperm(40, generator=torch.Generator().manual_seed(k))[:4].tolist()}) == 4
)


def test_clusters_are_drawn_from_and_the_far_ones_come_in_as_the_run_goes_on():
    found = made(Clusters(among=50, clusters=4, iterations=20), seed=START)
    cluster = torch.arange(40) // 10
    assert (cluster[found] == cluster[:, None]).all() and not (found == torch.arange(40)[:, None]).any()
    half = made(Clusters(among=50, clusters=4, iterations=20), seed=START, progress=0.5)
    assert (half >= 0).all(dim=1).sum() == 20 and set(half.unique().tolist()) == {
        -1,
        *(half[:, 0] >= 0).nonzero()[:, 0].tolist(),
    }


def test_consistent_neighbours_were_there_before():
    before = NEIGHBOURS[:, :6].flip(1)
    assert torch.equal(made(Consistent(among=8)), NEIGHBOURS[:, :8])
    found = made(Consistent(among=8), before=before)
    assert torch.equal(found, torch.cat([NEIGHBOURS[:, :6], torch.full((40, 2), -1)], dim=1))
    assert torch.equal(both(NEIGHBOURS, NEIGHBOURS[:, :1])[:, 0], NEIGHBOURS[:, 0])


def test_neighbours_skip_the_first_and_keep_whom_both_sides_count():
    assert torch.equal(made(Neighbours(among=5, skip=2)), NEIGHBOURS[:, 2:7])
    found = made(Neighbours(among=12, mutual=True))
    for i in range(40):
        for k in range(12):
            back = i in NEIGHBOURS[NEIGHBOURS[i, k]].tolist()
            assert found[i, k] == (NEIGHBOURS[i, k] if back else -1)


def test_placebos_are_as_large_and_have_nothing_to_do_with_the_image():
    shuffled = made(Shuffled(among=6))
    assert sorted(shuffled.tolist()) == sorted(NEIGHBOURS[:, :6].tolist())
    assert (shuffled == NEIGHBOURS[:, :6]).float().mean() < 0.3
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
    assert set(found[0].tolist()) == {5, 10, 15, 20, 25, 30, 35} if purity == 1 else True


def test_the_bank_remembers_the_last_embedding_of_each_image():
    bank, other, rows = Bank(drawn=4), Bank(drawn=4), torch.randn(3, 5)
    for each in (bank, other):
        each.table = torch.tensor([[1, 2], [2, -1], [-1, -1]])
    assert bank.draw(torch.tensor([0]), rows[:1]) is None
    bank.store(torch.tensor([2, 1]), rows[[2, 1]])
    other.load_state_dict(bank.state_dict())
    for each in (bank, other):
        drawn = each.draw(torch.tensor([0, 1, 2]), rows)
        assert drawn.known.sum(dim=1).tolist() == [2, 1, 0]
        torch.testing.assert_close(drawn.rows[1][drawn.known[1]][0], rows[2] / rows[2].norm(), atol=1e-3, rtol=0)


def test_relatives_of_the_bank_pull_after_the_warm_up():
    objective = Hex(HexCfg(policy="neighbours", drawn=1, warm_epoch=1), 0.2)
    objective.bank.table = torch.tensor([[1], [0], [3], [2]])
    z = torch.randn(8, 4, requires_grad=True)

    class Located(Step):
        ids = torch.arange(4)

    pairs = Pairs.from_views(z.split(4))
    plain = Hex(HexCfg(policy="infonce"), 0.2).replace(None, pairs, Located(0, 3))
    assert torch.equal(objective.replace(None, pairs, Located(0, 3)), plain)
    kept = objective.bank.rows.float()
    loss = objective.replace(None, pairs, Located(1, 3))
    far = Elsewhere(kept[[1, 0, 3, 2]].repeat(2, 1)[:, None], torch.ones(8, 1, dtype=torch.bool))
    expected = relatives_loss(
        z.double(), Located.ids.repeat(2), *torch.zeros(2, 8, 8).bool(), Action("pull"), 0.2, 1, 0, far
    )
    torch.testing.assert_close(loss.double(), expected, atol=1e-3, rtol=1e-3)


def test_a_live_bank_looks_again_in_each_epoch_and_mixes_the_own_view_in():
    bank, rows, policy = Bank(drawn=1, mix=0.5), torch.eye(4), Neighbours(among=1)
    bank.table, bank.labels, bank.live = torch.full((4, 1), -1), torch.zeros(4).long(), True
    bank.store(torch.arange(4), torch.stack([rows[0], rows[0], rows[1], rows[1]]))
    assert not bank.draw(torch.arange(4), rows).known.any()
    bank.look(policy, epoch=1, max_epochs=3)
    assert bank.table[:, 0].tolist() == [1, 0, 3, 2]
    bank.store(torch.arange(4), torch.stack([rows[0], rows[1], rows[1], rows[0]]))
    bank.look(policy, epoch=1, max_epochs=3)
    assert bank.table[:, 0].tolist() == [1, 0, 3, 2]  # the same epoch
    again = Bank(drawn=1, mix=0.5)
    again.live = True
    again.load_state_dict(bank.state_dict())
    for each in (bank, again):
        each.look(policy, epoch=2, max_epochs=3)
        assert each.table[:, 0].tolist() == [3, 2, 1, 0] if each is bank else len(each.table)
    drawn = bank.draw(torch.arange(4), rows).rows[:, 0]
    expected = torch.stack([rows[0] + rows[0], rows[1] + rows[1], rows[1] + rows[2], rows[0] + rows[3]])
    torch.testing.assert_close(drawn, torch.nn.functional.normalize(expected, dim=1), atol=1e-3, rtol=0)


def views(n=12, d=5, seed=1):
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    pair = torch.stack([z, z + 0.3 * torch.randn(n, d, generator=torch.Generator().manual_seed(9))])
    return Pairs.from_views(pair.unbind())


def test_false_negatives_are_near_to_any_view():
    pairs = views()
    s, n = (pairs.anchors @ pairs.keys.T).tolist(), len(pairs.keys)
    found = chosen(FalseNegatives(nearest=3, least=0.4), pairs)
    for i in range(n):
        partner = (i + n // 2) % n
        best = {j: max(s[i][j], s[partner][j]) for j in range(n) if j not in (i, partner)}
        top = sorted(best, key=best.get)[-3:]
        assert set(found[i].nonzero()[:, 0].tolist()) == {j for j in top if best[j] > 0.4}


def test_the_ring_has_quantiles_of_the_row_for_bounds():
    pairs, n = views(), 24
    for epoch, low in ((0, 0.0), (1, 0.25), (2, 0.5)):
        rows = slice(0, n)
        outside = Ring(low=0.5, high=0.9).selector(pairs, epoch, 2)(pairs.similarity(rows), rows)
        s = pairs.similarity(rows)
        bounds = [torch.quantile(s, bound, dim=1, interpolation="nearest")[:, None] for bound in (low, 0.9)]
        assert torch.equal(outside, (s < bounds[0]) | (s > bounds[1]))


def test_components_of_the_graph_of_nearest_neighbours(monkeypatch):
    pairs, n = views(n=9, seed=2), 9
    s, label = pairs.similarity(slice(0, 18)), list(range(n))
    for i in range(n):
        j = max((j for j in range(2 * n) if j % n != i % n), key=lambda j: float(s[i, j]))
        old, new = label[i % n], label[j % n]
        label = [new if each == old else each for each in label]
    expected = torch.tensor([[label[i % n] == label[j % n] and i % n != j % n for j in range(18)] for i in range(18)])
    assert 1 < len(set(label)) < n
    monkeypatch.setitem(pairs_module.BLOCK_ELEMENTS, "cpu", 80)
    assert torch.equal(chosen(Components(), pairs), expected)


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


def test_the_probe_counts_whom_a_rule_finds_and_compares_gradients(monkeypatch):
    torch.manual_seed(2)
    z, classes = torch.randn(12, 4, dtype=torch.float64), torch.arange(12) % 6 % 5
    groups = torch.tensor([0, 0, 1, 1, -1])[classes]
    pairs = Pairs.from_ids(z, torch.arange(12) % 6)
    policy = AdaptivePercentile(quantile=0.6, warm_epoch=0)
    monkeypatch.setitem(pairs_module.BLOCK_ELEMENTS, "cpu", 50)
    found = whom_it_found(pairs, policy.selector(pairs, 0, 1), 0.5, (classes, groups))
    s, which = cosines(z) / 0.5, chosen(policy, pairs)
    counts, mass = {"own_class": 0, "siblings": 0, "strangers": 0}, 0.0
    for i in range(12):
        others = [j for j in range(12) if j != i]
        mass += sum(s[i, j].exp() for j in others if which[i, j]) / sum(s[i, j].exp() for j in others) / 12
        for j in others:
            if which[i, j] and groups[i] >= 0 and groups[j] >= 0:
                same, kin = classes[i] == classes[j], groups[i] == groups[j]
                counts["own_class" if same else "siblings" if kin else "strangers"] += 1
    assert {name: float(found[name]) for name in counts} == pytest.approx(
        {name: number / sum(counts.values()) for name, number in counts.items()}
    )
    assert float(found["mass"]) == pytest.approx(float(mass))
    assert float(found["with_relatives"]) == float(which.any(dim=1).double().mean())
    u = pairs.anchors.clone().requires_grad_()
    x, self_, partner = u @ u.T / 0.5, torch.eye(12).bool(), torch.eye(12).roll(6, dims=1).bool()
    positive = x[partner]
    info = (x.masked_fill(self_, -torch.inf).logsumexp(dim=1) - positive).mean()
    decoupled = (x.masked_fill(self_ | partner, -torch.inf).logsumexp(dim=1) - positive).mean()
    a, b = (torch.autograd.grad(loss, u, retain_graph=True)[0].flatten() for loss in (info, decoupled))
    losses = lambda p: info_nce(p, 0.5), lambda p: hex_nce(p, NoNegative(), temperature=0.5, variant="release")[0]
    assert float(gradient_cosine(*losses, pairs)) == pytest.approx(float(a @ b / (a.norm() * b.norm())))
