#!/usr/bin/env python3
"""Make the "glyphs" data set: letters of many scripts in many fonts, 32x32 grey pictures with a three-level label tree.

    python make_glyphs.py FONTS OUT.npz          render, clean, split and save
    python make_glyphs.py --packages             print the font packages that FONTS must hold

FONTS holds one folder a family, as unpacked from the npm package "@fontsource/<family>":
    FONTS/<family>/metadata.json                 with the font's licence
    FONTS/<family>/unicode.json                  which file holds which characters
    FONTS/<family>/package.json                  with the package's version
    FONTS/<family>/files/*-<weight>-normal.woff2
Needs numpy, Pillow (with WOFF2 support, as in its wheels), fonttools and brotli. Deterministic for given packages.
"""

import argparse
import collections
import json
import pathlib
import re
import sys
import zlib

import numpy as np

SIDE = 32  # side of a picture
FIT = 26  # no glyph is wider or higher than this
TALL = 24  # height of a typical tall glyph of the script; the others keep their size relative to it
SMALL = 10  # a glyph smaller than this (in both directions) is enlarged to it
EM = 160  # size at which glyphs are drawn before they are scaled down
CAP = 200  # at most so many pictures a class ...
LEAST = 40  # ... and at least so many, or the class is left out
SAME = 1.5  # two pictures of a character with a mean absolute difference up to this (of 255) count as one
ALIKE = 5.0  # as above, to find families that are the same design: they go to the same side of the split
ALIKE_PART = 0.45
VAL = 0.2  # part of the pictures (by family) for validation
UNSEEN = 0.2  # part of each script's characters in the list "unseen"
SEED = 2024

# The label tree: script -> group -> characters. Of characters that look the same in different scripts or cases only one
# is here (see README.md for the list of what was left out).
TREE = {
    "Latin": {
        "upper": "ABCDEFGHJKLMNOPQRSTUVWXYZ",
        "lower": "abdefghijmnprty",
        "extended": "ÆØÅÇÑÜæœéåßðłšğ",
    },
    "Digits": {"digits": "123456789"},
    "Greek": {
        "upper": "ΓΔΘΛΞΠΣΦΨΩ",
        "lower": "αβγδεζηθλμξπρσςτφω",
    },
    "Cyrillic": {
        "vowels": "ЁИЫЭЮЯё",
        "consonants": "БДЖЙЛЦЧШЩбЪ",
        "regional": "ЄЇЎЉЊЂЋЏЃЌ",
    },
    "Hebrew": {"letters": "אבגדהזטיכלמנעפצקרשת", "finals": "ךםף"},
    "Arabic": {
        "beh": "بتث",
        "hah": "جحخ",
        "dal": "دذ",
        "reh": "رز",
        "seen": "سش",
        "sad": "صض",
        "tah": "طظ",
        "ain": "عغ",
        "feh": "فق",
        "kaf": "كل",
        "other": "امنهوي",
    },
    "Thai": {
        "mid": "กจฎดตปอ",
        "high": "ขฉฐถผฝศษส",
        "low": "คงชญฑณฟภมยลวฮ",
    },
    "Devanagari": {
        "vowels": "अआइईउऊएऔ",
        "velars": "कखगघ",
        "palatals": "चजझञ",
        "retroflexes": "टठडढण",
        "dentals": "तदधन",
        "labials": "पफबभम",
        "others": "यरलवशषसह",
    },
    "Hiragana": {
        "a": "あいうえお",
        "ka": "かきくけこ",
        "sa": "さしすせそ",
        "ta": "たちつてと",
        "na": "なにねの",
        "ha": "はひふへほ",
        "ma": "まみむめも",
        "ya": "やゆよ",
        "ra": "らりるろ",
        "wa": "わん",
    },
    "Katakana": {
        "a": "アイウエオ",
        "ka": "クケコ",
        "sa": "サシスセソ",
        "ta": "タチテト",
        "na": "ナヌネ",
        "ha": "ハヒフホ",
        "ma": "マミムメ",
        "ya": "ユヨ",
        "ra": "ルレ",
        "wa": "ワヲ",
    },
    "Hangul": {
        "g": "가거고구",
        "n": "나너노누",
        "d": "다더도두",
        "r": "라러로루",
        "m": "마머모무",
        "b": "바버보부",
        "s": "사서소수",
        "ng": "아어오우",
        "j": "자저조주",
    },
}
# Scripts whose glyphs share one scale in a font.
SCALE = (
    {s: s for s in TREE}
    | {s: "European" for s in ("Latin", "Digits", "Greek", "Cyrillic")}
    | {"Hiragana": "Kana", "Katakana": "Kana"}
)
# How many weights of a family are drawn: two where there are many families, more where there are few.
WEIGHTS = {s: 4 for s in TREE} | {s: 2 for s in ("Latin", "Digits", "Greek", "Cyrillic")} | {"Hangul": 6}
# Lower-case letters and the upper-case letters to which a font of capitals only may map them.
CASES = {c: c.upper() for c in "abdefghijmnprtyæœéåðłšğёбαβγδεζηθλμξπρσςτφω"}
# Families that draw capitals in the place of (most) lower-case letters, with forms that differ a little.
CAPITALS = {
    "amatic-sc",
    "bangers",
    "bungee",
    "cinzel",
    "creepster",
    "luckiest-guy",
    "permanent-marker",
    "rubik-mono-one",
}

FAMILIES = """
abril-fatface alegreya alegreya-sans alexandria alfa-slab-one alice almarai alumni-sans amatic-sc amiri anonymous-pro
anuphan architects-daughter aref-ruqaa arimo arsenal assistant audiowide bad-script bai-jamjuree baloo-2
baloo-bhaijaan-2 balsamiq-sans bangers bitter biz-udgothic black-han-sans bungee cairo cardo cascadia-code caveat
chakra-petch changa cinzel comfortaa comic-relief commissioner cormorant courier-prime cousine creepster
dancing-script dela-gothic-one didact-gothic dotgothic16 eb-garamond el-messiri exo-2 fahkwang fira-code fira-sans
firago frank-ruhl-libre fredoka gaegu gentium-plus geologica gfs-didot google-sans gothic-a1 gowun-batang gugi halant
heebo hind ibm-plex-sans ibm-plex-sans-arabic ibm-plex-sans-kr ibm-plex-sans-thai indie-flower inknut-antiqua inter
iosevka itim jetbrains-mono josefin-sans jura k2d kaisei-opti kalam kanit karma kaushan-script khand kiwi-maru
kosugi-maru lalezar lateef lemonada libre-baskerville line-seed-jp literata lobster lora luckiest-guy m-plus-1p
m-plus-rounded-1c manrope mansalva marck-script martel merriweather mochiy-pop-one modak montserrat mukta
nanum-brush-script nanum-gothic nanum-gothic-coding nanum-myeongjo nanum-pen-script neucha noto-kufi-arabic
noto-naskh-arabic noto-nastaliq-urdu noto-sans noto-sans-arabic noto-sans-devanagari noto-sans-hebrew noto-sans-thai
noto-serif noto-serif-jp noto-serif-kr noto-serif-thai old-standard-tt open-sans orbitron oswald pacifico patua-one
permanent-marker philosopher piazzolla pixelify-sans play playfair-display playpen-sans poiret-one poor-story poppins
prata press-start-2p pretendard prompt pt-sans pt-serif rajdhani readex-pro reem-kufi righteous roboto roboto-mono
roboto-slab rubik rubik-mono-one russo-one sarabun satisfy sawarabi-gothic scheherazade-new shantell-sans
shippori-mincho sofia-sans source-code-pro source-sans-3 source-serif-4 space-mono special-elite spectral sriracha
stix-two-text suez-one sunflower tajawal taviraj teko tenor-sans tinos tiny5 unbounded uncial-antiqua
unifrakturmaguntia varela-round vazirmatn victor-mono vollkorn yanone-kaffeesatz yantramanav yeseva-one yomogi
yusei-magic zain zen-kaku-gothic-antique zen-kurenaido zen-maru-gothic zen-old-mincho
""".split()


def weights_of(available, number):
    """The weights to draw: those nearest to 400 and to 700, then the lightest (200 or more), the heaviest, others."""
    out = [min(available, key=lambda w: (abs(w - 400), w))]
    bold = min(available, key=lambda w: (abs(w - 700), w))
    if bold - out[0] >= 200:
        out.append(bold)
    light = min([w for w in available if w >= 200] or available)
    for w in (light, max(available), *available):
        if len(out) < number and all(abs(w - o) >= 100 for o in out):
            out.append(w)
    return out


def in_ranges(text):
    """The code points of a unicode.json entry such as U+0-FF,U+131."""
    out = set()
    for part in text.split(","):
        a, _, b = part.strip().upper().removeprefix("U+").partition("-")
        out.update(range(int(a, 16), int(b or a, 16) + 1))
    return out


def files_of(folder, weight, wanted):
    """{character: file} for the wanted characters that the family really has (by the files' own character maps)."""
    from fontTools.ttLib import TTFont

    ranges = {}
    try:
        ranges = {k.strip("[]"): in_ranges(v) for k, v in json.loads((folder / "unicode.json").read_text()).items()}
    except (OSError, ValueError):
        pass
    out = {}
    name = re.compile(re.escape(folder.name) + rf"-(.+)-{weight}-normal\.woff2")
    codes = {ord(c) for c in wanted}
    # files whose subset has a declared range come first, in the order of their names
    found = sorted(
        (m.group(1) not in ranges, m.group(1), p) for p in (folder / "files").iterdir() if (m := name.fullmatch(p.name))
    )
    for _, subset, path in found:
        left = codes - {ord(c) for c in out}
        if not left:
            break
        if subset in ranges and not left & ranges[subset]:
            continue
        font = TTFont(path, lazy=True)
        cmap = font.getBestCmap() or {}
        for code in left & set(cmap):
            if cmap[code] != ".notdef":
                out[chr(code)] = path
        font.close()
    return out


def draw(font, char):
    """The glyph at the size EM, cut to its bounding box, or None where nothing is drawn."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (5 * EM, 5 * EM))
    ImageDraw.Draw(image).text((2 * EM, 2 * EM), char, font=font, fill=255)
    box = image.getbbox()
    return image.crop(box) if box else None


def picture(glyph, scale):
    """The glyph scaled and centred in SIDE x SIDE pixels, antialiased by area."""
    from PIL import Image

    w, h = glyph.size
    scale = min(max(scale, SMALL / max(w, h)), FIT / max(w, h))
    side = SIDE / scale
    n = max(int(np.ceil(side)), w, h) + 4
    x, y = (n - w) // 2, (n - h) // 2
    canvas = Image.new("L", (n, n))
    canvas.paste(glyph, (x, y))
    left, top = x + w / 2 - side / 2, y + h / 2 - side / 2
    return np.asarray(canvas.resize((SIDE, SIDE), Image.BOX, (left, top, left + side, top + side)))


def same_shape(a, b):
    """Correlation of two glyphs with both stretched to a common size."""
    from PIL import Image

    a, b = (np.asarray(g.resize((24, 24), Image.BOX), float).ravel() for g in (a, b))
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else 0.0


def render(root, say):
    """All pictures by family: [(script, group, char, family, weight, picture)], {family: (licence, version)}."""
    from PIL import ImageFont

    where = {c: (s, g) for s, groups in TREE.items() for g, chars in groups.items() for c in chars}
    rows, licences = [], {}
    for family in FAMILIES:
        folder = root / family
        meta = json.loads((folder / "metadata.json").read_text())
        licence = meta["license"]["type"] if isinstance(meta["license"], dict) else meta["license"]
        if licence not in ("OFL-1.1", "Apache-2.0"):
            sys.exit(f"{family}: licence {licence}")
        licences[family] = licence, json.loads((folder / "package.json").read_text())["version"]
        weights = sorted(
            {
                int(m.group(1))
                for p in (folder / "files").iterdir()
                if (m := re.fullmatch(r".*-(\d+)-normal\.woff2", p.name))
            }
        )
        extra = set(where) | set(CASES.values())
        count = collections.Counter()
        for rank, weight in enumerate(weights_of(weights, max(WEIGHTS.values()))):
            wanted = [c for c in sorted(extra) if c not in where or rank < WEIGHTS[where[c][0]]]
            fonts, glyphs = {}, {}
            for char, path in files_of(folder, weight, wanted).items():
                if path not in fonts:
                    fonts[path] = ImageFont.truetype(str(path), EM, layout_engine=ImageFont.Layout.BASIC)
                glyph = draw(fonts[path], char)
                if glyph is not None:
                    glyphs[char] = glyph
            # fonts of capitals only: their lower-case letters are wrong
            pairs = [same_shape(glyphs[a], glyphs[b]) > 0.9 for a, b in CASES.items() if a in glyphs and b in glyphs]
            if family in CAPITALS or (pairs and np.mean(pairs) > 0.6):
                glyphs = {c: g for c, g in glyphs.items() if c not in CASES and c != "ß"}
                count["capitals only"] += 1
            scale = {}
            for group in set(SCALE.values()):
                high = [g.size[1] for c, g in glyphs.items() if c in where and SCALE[where[c][0]] == group]
                if high:
                    scale[group] = TALL / np.percentile(high, 80)
            done = collections.defaultdict(list)
            for char, glyph in sorted(glyphs.items()):
                if char in where:
                    p = picture(glyph, scale[SCALE[where[char][0]]])
                    if p.astype(int).sum() > 255 * 12:  # not blank
                        done[p.tobytes()].append((char, p))
            for same in done.values():
                if len(same) > 1:  # a placeholder, or a font of one case
                    count["same picture for several characters"] += len(same)
                    continue
                char, p = same[0]
                rows.append((*where[char], char, family, weight, p))
                count["kept"] += 1
        say(f"{family}: {dict(count)}")
    return rows, licences


def clean(rows, say):
    """Drop repeats; find families of one design. Returns the rows kept and {family: design}."""
    by_char = collections.defaultdict(list)
    for row in rows:
        by_char[row[2]].append(row)
    kept, near, common = [], collections.Counter(), collections.Counter()
    dropped = 0
    for _char, items in by_char.items():
        x = np.stack([r[5] for r in items]).astype(np.int16).reshape(len(items), -1)
        family = [r[3] for r in items]
        keep = []
        closest = {}
        for i in range(len(items)):
            d = np.abs(x[:i] - x[i]).mean(1) if i else np.zeros(0)
            for j, v in enumerate(d):
                if family[i] != family[j]:
                    key = tuple(sorted((family[i], family[j])))
                    closest[key] = min(closest.get(key, 255), float(v))
            if len(keep) and d[keep].min() <= SAME:
                dropped += 1
                continue
            keep.append(i)
        kept += [items[i] for i in keep]
        for key, v in closest.items():
            common[key] += 1
            near[key] += v <= ALIKE
    design = {f: f for f in FAMILIES}
    for (a, b), n in sorted(common.items()):
        if near[a, b] >= ALIKE_PART * n and near[a, b] >= 5:
            say(f"alike: {a} {b} {near[a, b]}/{n}")
            old, new = design[b], design[a]
            design = {f: new if d == old else d for f, d in design.items()}
    say(f"dropped {dropped} repeats of {len(rows)}")
    return kept, design


def limit(rows, say):
    """At most CAP pictures a class, every family's regular weight first; classes with fewer than LEAST are left out."""
    by_char = collections.defaultdict(list)
    for row in rows:
        by_char[row[2]].append(row)
    out = []
    for char, items in by_char.items():
        if len(items) < LEAST:
            say(f"left out for having only {len(items)} pictures: {char}")
            continue
        seen = collections.Counter()
        order = []
        for row in items:
            order.append((seen[row[3]], zlib.crc32(f"{SEED} {char} {row[3]}".encode()), row[4], row))
            seen[row[3]] += 1
        out += [o[3] for o in sorted(order, key=lambda o: o[:3])[:CAP]]
    return out


def choose_val(rows, design, say):
    """The validation families: whole designs, drawn so that every script and class has close to VAL of its pictures."""
    scripts, chars = list(TREE), sorted({r[2] for r in rows})
    designs = sorted({design[r[3]] for r in rows})
    table = np.zeros((len(designs), len(scripts) + len(chars)))
    for r in rows:
        i = designs.index(design[r[3]])
        table[i, scripts.index(r[0])] += 1
        table[i, len(scripts) + chars.index(r[2])] += 1
    total = table.sum(0)
    weight = np.r_[np.full(len(scripts), 5.0), np.full(len(chars), 1.0 / len(chars) * len(scripts))]
    families = np.array([sum(1 for f in FAMILIES if design[f] == d) for d in designs])
    rng = np.random.default_rng(SEED)
    best = None
    for _ in range(40):  # local search from random starts
        pick = rng.random(len(designs)) < VAL

        def cost(p):
            part = table[p].sum(0) / np.maximum(total, 1)
            share = families[p].sum() / families.sum()
            return (weight * (part - VAL) ** 2).sum() + 20 * (share - VAL) ** 2

        value = cost(pick)
        for _ in range(1500):
            new = pick.copy()
            new[rng.integers(len(designs), size=rng.integers(1, 3))] ^= True
            v = cost(new)
            if v < value:
                pick, value = new, v
        if best is None or value < best[0]:
            best = value, pick
    say(f"split cost {best[0]:.4f}")
    chosen = {d for d, p in zip(designs, best[1], strict=False) if p}
    return {f for f in FAMILIES if design[f] in chosen}


def main():
    """Render, clean, split and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fonts", nargs="?", type=pathlib.Path)
    parser.add_argument("out", nargs="?", type=pathlib.Path)
    parser.add_argument("--packages", action="store_true", help="print the names of the font packages")
    args = parser.parse_args()
    if args.packages:
        print("\n".join("@fontsource/" + f for f in FAMILIES))
        return
    if not args.out:
        parser.error("FONTS and OUT.npz are needed")

    def say(text):
        print(text, flush=True)

    rows, licences = render(args.fonts, say)
    rows, design = clean(rows, say)
    rows = limit(rows, say)
    val = choose_val(rows, design, say)

    have = {r[2] for r in rows}
    names0, names1, names2, parent1, parent2 = [], [], [], [], []
    for script, groups in TREE.items():
        for group, chars in groups.items():
            chars = [c for c in chars if c in have]
            if not chars:
                continue
            if script not in names0:
                names0.append(script)
            names1.append(script if group == script.lower() else f"{script} {group}")
            parent1.append(len(names0) - 1)
            names2 += chars
            parent2 += [len(names1) - 1] * len(chars)
    leaf = {c: i for i, c in enumerate(names2)}
    families = [f for f in FAMILIES if any(r[3] == f for r in rows)]
    rows.sort(key=lambda r: (leaf[r[2]], families.index(r[3]), r[4]))
    fine = np.array([leaf[r[2]] for r in rows])
    group = np.array(parent2)[fine]
    labels = np.stack([np.array(parent1)[group], group, fine], 1).astype(np.int16)

    rng = np.random.default_rng(SEED)
    unseen = []
    for s in range(len(names0)):
        ids = [i for i in range(len(names2)) if parent1[parent2[i]] == s]
        unseen += sorted(rng.choice(ids, round(UNSEEN * len(ids)), replace=False).tolist())

    data = {
        "images": np.stack([r[5] for r in rows]).astype(np.uint8),
        "labels": labels,
        "split": np.array([r[3] in val for r in rows], np.uint8),
        "family": np.array([families.index(r[3]) for r in rows], np.int16),
        "weight": np.array([r[4] for r in rows], np.int16),
        "names0": np.array(names0),
        "names1": np.array(names1),
        "names2": np.array(names2),
        "parent1": np.array(parent1, np.int16),
        "parent2": np.array(parent2, np.int16),
        "families": np.array(families),
        "family_split": np.array([f in val for f in families], np.uint8),
        "licences": np.array([licences[f][0] for f in families]),
        "versions": np.array([licences[f][1] for f in families]),
        "unseen": np.array(unseen, np.int16),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out, **data)
    say(
        f"{len(rows)} pictures, {len(names2)} characters, {len(names1)} groups, {len(families)} families "
        f"({sum(f in val for f in families)} for validation), {args.out.stat().st_size / 1e6:.1f} MB"
    )
    for s, name in enumerate(names0):
        i = labels[:, 0] == s
        per = np.bincount(labels[i, 2])
        per = per[per > 0]
        say(
            f"{name}: {i.sum()} pictures, {len(per)} characters, {len(set(labels[i, 1]))} groups, "
            f"{per.min()}-{per.max()} a character, {len(set(data['family'][i]))} families, "
            f"val {data['split'][i].mean():.3f}"
        )


if __name__ == "__main__":
    main()
