import numpy as np
import pytest
from PIL import Image

from solo.analysis.figure import named_palette
from solo.analysis.plots import draw_embedding, embed
from solo.errors import UserError


def clusters(count=60, dim=8):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    return (np.eye(3, dim)[labels] * 20 + rng.normal(size=(count, dim))).astype(np.float32), labels


@pytest.mark.parametrize("embedding", [pytest.param("umap", marks=pytest.mark.thorough), "tsne", "pca"])  # compiled
def test_clusters_stay_apart_and_the_seed_decides(embedding):
    features, labels = clusters()
    points = embed(features, embedding, seed=1)
    assert points.shape == (60, 2) and np.array_equal(points, embed(features, embedding, seed=1))
    centres = np.stack([points[labels == c].mean(axis=0) for c in range(3)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == labels).mean() > 0.9


@pytest.mark.parametrize("count", [2, 3, 4, 5, 16, 52])
@pytest.mark.parametrize("embedding", [pytest.param("umap", marks=pytest.mark.thorough), "tsne", "pca"])
def test_few_points(embedding, count):
    points = embed(clusters(count)[0], embedding, seed=0)
    assert points.shape == (count, 2) and np.isfinite(points).all()


def test_collapsed_and_broken_features():
    assert np.isfinite(embed(np.ones((20, 4), np.float32), "umap", 0)).all()
    for broken in (np.ones((1, 4)), np.full((5, 4), np.nan)):
        with pytest.raises(UserError, match="at least two rows of finite numbers"):
            embed(broken, "pca", 0)


def test_pca_keeps_distances_in_a_plane():
    plane = (
        np.random.default_rng(1).normal(size=(10, 2)) @ np.linalg.qr(np.random.default_rng(2).normal(size=(5, 2)))[0].T
    )
    points = embed(plane, "pca", 0)
    distances = [np.linalg.norm(x[:, None] - x, axis=2) for x in (plane, points)]
    assert np.allclose(*distances, atol=1e-5)


@pytest.mark.parametrize("palette", ["hls", "tab10", "viridis"])
def test_palettes_that_a_user_names(palette):
    assert len(set(named_palette(palette, 7))) == 7 and named_palette(palette, 1)[0].startswith("#")
    with pytest.raises(UserError, match="color_palette='rainbows' is unknown"):
        named_palette("rainbows", 2)


def test_one_panel_a_level_in_every_file(tmp_path):
    features, labels = clusters(300)
    targets = np.stack([labels // 2, labels], axis=1)
    files = [tmp_path / "new" / "a.pdf", tmp_path / "a.png"]
    names = [("group", ["x", "y"]), ("class", ["a", "b", "c"])]
    assert draw_embedding(features, targets, files, names=names, embedding="pca", max_points=200) == 200
    assert files[0].read_bytes().startswith(b"%PDF")
    with Image.open(files[1]) as image:
        assert image.width > 1.8 * image.height
    many = np.arange(300)[:, None]
    assert draw_embedding(features, many, files[1:], embedding="pca") == 300  # too many classes for a legend
