"""The tables on own data in results.md, from what `python benchmarks/own_data.py` measured."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
MARK = "<!-- own data: written by docs/results_own_data.py -->\n"


def main() -> None:
    sys.path.insert(0, str(DOCS.parent / "benchmarks"))
    from own_data import LINES, Results, tables

    page = DOCS / "results.md"
    before, mark, rest = page.read_text(encoding="utf-8").partition(MARK)
    _, end, after = rest.partition("<!-- end -->")
    table = "\n".join(tables(Results(LINES))).strip()
    page.write_text(f"{before}{mark}{table}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
