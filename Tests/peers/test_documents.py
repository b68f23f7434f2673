# SPDX-License-Identifier: Apache-2.0
"""Documents that must keep up with the code."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_every_verdict_is_explained_once():
    enum = re.search(r"enum xe_verdict \{(.*?)\};", (ROOT / "bpf/wire.h").read_text(), re.S).group(1)
    document = (ROOT / "docs/drops.md").read_text()
    sections = dict(zip(("protected", "pass", "drop", "fault"), re.split(r"^## ", document, flags=re.M)[1:], strict=True))
    rows = {name: re.findall(r"^\| `(\w+)` \|", text, re.M) for name, text in sections.items()}
    expected = {name: [] for name in rows}
    for constant in re.findall(r"\bXE_(\w+)\s*=", enum):
        kind, _, reason = constant.partition("_")
        if constant == "VERDICTS":
            continue
        if kind in ("PASS", "DROP", "FAULT"):
            expected[kind.lower()].append(reason.lower())
        else:
            expected["protected"].append(constant.lower())
    assert rows == expected


def test_links_between_documents_lead_somewhere():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
