#!/usr/bin/env python3
"""Fills a page with what the benchmarks have printed: between `<!-- NAME -->` and `<!-- /NAME -->` goes NAME.txt.

Usage: page.py FOLDER PAGE.md
"""

import pathlib
import re
import sys


def fill(folder, page):
    def printed(match):
        name = match.group(1)
        lines = (folder / f"{name}.txt").read_text(encoding="utf-8").strip().splitlines()
        is_bar = re.compile(r", (holds|short)$")
        shown = [line for line in lines if not is_bar.search(line)]
        return f"<!-- {name} -->\n\n" + "\n".join(shown).strip() + f"\n\n<!-- /{name} -->"

    def bars(_match):
        rows = ["| figure | | bar | |", "|---|---|---|---|"]
        for file in sorted(folder.glob("*.txt")):
            for line in file.read_text(encoding="utf-8").splitlines():
                found = re.fullmatch(r"(.*) ([\d.-]+), (at (?:most|least) [\d.]+), (holds|short)", line)
                if found:
                    rows.append("| {} | {} | {} | {} |".format(*found.groups()))
        return "<!-- bars -->\n\n" + "\n".join(rows) + "\n\n<!-- /bars -->"

    text = page.read_text(encoding="utf-8")
    text = re.sub(r"<!-- bars -->.*<!-- /bars -->", bars, text, flags=re.DOTALL)
    text = re.sub(r"<!-- (?!bars)([a-z-]+) -->.*?<!-- /\1 -->", printed, text, flags=re.DOTALL)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    fill(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
