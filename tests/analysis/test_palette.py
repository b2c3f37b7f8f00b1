import colorsys

from solo.analysis.palette import UNKNOWN, class_colours, oklch, superclass_colours


def rgb(colour):
    return [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]


def test_known_colours():
    assert oklch(1, 0, 0) == "#ffffff" and oklch(0, 0, 0) == "#000000"
    assert oklch(0.6279, 0.2577, 29.23) == "#ff0000"  # sRGB red
    red, green, blue = rgb(oklch(0.95, 0.4, 30))  # as much colour as a screen can show at that lightness
    assert 1 >= red > green > 0.8 and red > blue > 0.8


def test_hue_says_the_superclass_and_lightness_the_class():
    parents = [0, 1, 0, 1, 0, 1, -1]
    colours = class_colours(parents, 2)
    hues = [colorsys.rgb_to_hls(*rgb(colour))[0] for colour in colours[:6]]
    light = [colorsys.rgb_to_hls(*rgb(colour))[1] for colour in colours[:6]]
    for members in ([0, 2, 4], [1, 3, 5]):
        assert max(hues[m] for m in members) - min(hues[m] for m in members) < 0.08
        assert [light[m] for m in members] == sorted(light[m] for m in members)
    assert abs(hues[0] - hues[1]) > 0.2 and colours[6] == UNKNOWN
    assert len(set(superclass_colours(20))) == 20
