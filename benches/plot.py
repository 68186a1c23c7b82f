#!/usr/bin/env python3
"""Plots what each stack adds to a request, from the tables that the peers' benchmark prints.

Usage: plot.py TABLES.md PLOT.svg
"""

import html
import re
import sys

BAR, GAP, LEFT, RIGHT, WIDTH, TOP = 22, 12, 430, 90, 1000, 64


def tables(text):
    """(title, [(peer, nanoseconds)]) of each table of costs per request."""
    title, rows = None, []
    for line in text.splitlines():
        if line.startswith("#"):
            if rows:
                yield title, rows
            title, rows = line.strip("# "), []
        elif title and title.startswith("Per request") and line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if re.fullmatch(r"-?\d+", cells[2]):
                rows.append((cells[0].replace("`", ""), int(cells[2])))
    if rows:
        yield title, rows


def text(x, y, words, anchor="start", size=13, weight="normal"):
    words = html.escape(words)
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}">{words}</text>'
    )


def step(largest):
    """A round distance of gridlines: about five of them."""
    size = 1
    while largest / size > 6:
        size = size * 5 // 2 if str(size)[0] == "2" else size * 2
    return size


def plot(y, title, rows):
    rows = sorted(rows, key=lambda row: row[1])
    largest = max(max(nanos for _, nanos in rows), 1)
    scale = (WIDTH - LEFT - RIGHT) / largest
    height = len(rows) * (BAR + GAP)
    shapes = [text(20, y, title, size=16, weight="bold")]
    top = y + 16
    for tick in range(0, largest + 1, step(largest)):
        x = LEFT + tick * scale
        shapes.append(f'<line x1="{x:.0f}" y1="{top}" x2="{x:.0f}" y2="{top + height}" stroke="#ddd"/>')
        shapes.append(text(x, top + height + 16, str(tick), "middle", 12))
    for number, (peer, nanos) in enumerate(rows):
        at = top + number * (BAR + GAP) + GAP / 2
        color = "#c2410c" if "tower-symbl-auth" in peer else "#64748b"
        width = max(nanos * scale, 1)
        shapes.append(text(LEFT - 8, at + BAR - 6, peer, "end"))
        shapes.append(f'<rect x="{LEFT}" y="{at:.0f}" width="{width:.0f}" height="{BAR}" fill="{color}"/>')
        shapes.append(text(LEFT + width + 6, at + BAR - 6, f"{nanos} ns"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    shapes.append(text(middle, top + height + 36, "over the peer's own baseline, ns per request", "middle"))
    return shapes, top + height + TOP + 12


def main(source, target):
    with open(source, encoding="utf-8") as file:
        found = list(tables(file.read()))
    if not found:
        sys.exit(f"{source} has no table of costs per request")
    shapes, y = [], 36
    for title, rows in found:
        more, y = plot(y, title, rows)
        shapes += more
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y - 24:.0f}" '
        'font-family="sans-serif" fill="#111">'
    )
    with open(target, "w", encoding="utf-8") as file:
        print(head, '<rect width="100%" height="100%" fill="#fff"/>', *shapes, "</svg>", sep="\n", file=file)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
