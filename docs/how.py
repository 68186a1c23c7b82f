#!/usr/bin/env python3
"""Draws docs/how.txt as docs/how-light.svg and docs/how-dark.svg. With --check, says whether they are those."""

import pathlib
import sys
from xml.sax.saxutils import escape

FOLDER = pathlib.Path(__file__).parent
WIDTH, HEIGHT = 9, 20  # of a character
COLOURS = {"light": ("#1f2328", "#59636e"), "dark": ("#f0f6fc", "#9198a1")}  # text, lines
# Where the lines of a character go from its middle: left, right, up, down.
LINES = {"─": "lr", "│": "ud", "┌": "rd", "┐": "ld", "└": "ru", "┘": "lu", "┴": "lru", "┬": "lrd", "┼": "lrud"}
ARROWS = {"►": (1, 0), "◄": (-1, 0), "▲": (0, -1), "▼": (0, 1)}
ENDS = {"l": (-WIDTH / 2, 0), "r": (WIDTH / 2, 0), "u": (0, -HEIGHT / 2), "d": (0, HEIGHT / 2)}


def arrow(x, y, dx, dy):
    # To the edge of its character, with a line behind it.
    tip = (x + dx * WIDTH / 2, y + dy * HEIGHT / 2)
    back = (tip[0] - dx * 8, tip[1] - dy * 8)
    points = [tip, (back[0] + dy * 4, back[1] + dx * 4), (back[0] - dy * 4, back[1] - dx * 4)]
    tail = f"M{x - dx * WIDTH / 2:g} {y - dy * HEIGHT / 2:g}L{back[0]:g} {back[1]:g}"
    return tail, "M" + "L".join(f"{x:g} {y:g}" for x, y in points) + "Z"


def draw(text, colours):
    rows = text.rstrip("\n").split("\n")
    lines, heads, words = [], [], []
    for row, line in enumerate(rows):
        y = row * HEIGHT + HEIGHT / 2
        word, start = "", 0
        for column, char in enumerate(line + "  "):
            x = column * WIDTH + WIDTH / 2
            if char in LINES:
                lines += [f"M{x:g} {y:g}l{ENDS[end][0]:g} {ENDS[end][1]:g}" for end in LINES[char]]
            if char in ARROWS:
                tail, head = arrow(x, y, *ARROWS[char])
                lines.append(tail)
                heads.append(head)
            is_word = char not in LINES and char not in ARROWS
            if is_word and not (char == " " and word.endswith(" ")):
                start = start if word else column
                word += char
            else:
                if word.strip():
                    words.append((start + len(word) - len(word.lstrip()), y, word.strip()))
                word = ""
    width, height = max(map(len, rows)) * WIDTH + WIDTH, len(rows) * HEIGHT + HEIGHT // 2
    ink, stroke = colours
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="14">',
        "<!-- Drawn from how.txt by how.py. -->",
        f'<path d="{"".join(lines)}" fill="none" stroke="{stroke}" stroke-width="1.4" stroke-linecap="square"/>',
        f'<path d="{"".join(heads)}" fill="{stroke}"/>',
    ]
    out += [
        f'<text x="{column * WIDTH}" y="{y + 5:g}" fill="{ink}" textLength="{len(word) * WIDTH}">{escape(word)}</text>'
        for column, y, word in words
    ]
    return "\n".join(out + ["</svg>", ""])


def main():
    text = (FOLDER / "how.txt").read_text()
    stale = []
    for name, colours in COLOURS.items():
        path, svg = FOLDER / f"how-{name}.svg", draw(text, colours)
        if "--check" not in sys.argv:
            path.write_text(svg)
        elif not path.exists() or path.read_text() != svg:
            stale.append(path.name)
    if stale:
        sys.exit(f"{', '.join(stale)}: not what docs/how.txt says; run docs/how.py")


main()
