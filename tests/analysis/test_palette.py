import itertools

import numpy as np

from solo.analysis.figure import BAD, CATEGORIES, GOOD, OTHER, RUNS, SAME, category_colours

# Machado, Oliveira, Fernandes: A physiologically-based model for simulation of color vision deficiency (2009), table 1,
# severity 1, on linear RGB; and Ottosson's OKLab.
EYES = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
CONES = [[0.41222147, 0.53633254, 0.05144599], [0.2119035, 0.68069955, 0.10739696], [0.08830246, 0.28171884, 0.6299787]]
LAB = [
    [0.21045426, 0.79361779, -0.00407205],
    [1.97799849, -2.42859221, 0.45059371],
    [0.02590404, 0.78277177, -0.80867577],
]


def rgb(colour):
    return [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]


def linear(colour):
    return np.array([part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb(colour)])


def seen(colour, eye):
    """OKLab of what an eye makes of a colour."""
    return np.array(LAB) @ np.cbrt(np.array(CONES) @ np.clip(np.array(EYES[eye]) @ linear(colour), 0, 1))


def luminance(colour):
    return linear(colour) @ [0.2126, 0.7152, 0.0722]


def test_colour_blind_eyes_tell_all_eight_apart():
    assert set(RUNS) == set(CATEGORIES) and not set(RUNS[:2]) & set(CATEGORIES[:4])
    for eye in EYES:
        for a, b in itertools.combinations(RUNS, 2):
            assert np.linalg.norm(seen(a, eye) - seen(b, eye)) > 0.12, (eye, a, b)


def test_they_stand_out_from_both_backgrounds():
    for colour in (*RUNS, SAME, OTHER, GOOD, BAD, *category_colours(20)):
        for paper, least in (("#ffffff", 1.8), ("#1b1d22", 2.8)):  # thin lines drown in the dark first
            light, dark = sorted((luminance(colour), luminance(paper)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) > least, (colour, paper)


def test_many_categories():
    assert category_colours(3) == list(CATEGORIES[:3]) and len(category_colours(8)) == 8
    many = category_colours(20)
    assert len(set(many)) == 20
    for a, b in zip(many, many[1:], strict=False):  # neighbours differ for every eye
        assert min(np.linalg.norm(seen(a, eye) - seen(b, eye)) for eye in EYES) > 0.08
