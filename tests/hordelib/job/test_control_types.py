"""The table of control types, and the page that owners read it on."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest

from hordelib.job.control_types import CLASSIC, CONTROL_TYPES, EXTENDED, ControlType
from hordelib.job.control_weights import Weights
from tests.support.owner import PROJECT

PAGE = (PROJECT / "docs" / "jobs.md").read_text("utf-8")
FILES = list(
    dict.fromkeys(
        each for row in CONTROL_TYPES.values() for each in (row.control_net, *row.weights)
    )
)


def type_row(control: ControlType) -> str:
    row = CONTROL_TYPES[control]
    weights = ", ".join(each.file for each in row.weights) or "\N{EN DASH}"
    return f"| {control} | {row.control_net.file} | {weights} |"


def file_row(weights: Weights) -> str:
    origin, name = "the horde's list", weights.file
    if not weights.is_listed:
        path = PurePosixPath(urlsplit(weights.url).path)
        origin = "/".join(path.parts[1:3])
        name = f"{name} (there {path.name})" if path.name != name else name
    verified = f"sha256 {weights.sha256[:12]}" if weights.sha256 else "size and format"
    verified = "sha256 of the list" if weights.is_listed else verified
    megabytes = weights.size_bytes / 10**6
    size = f"{megabytes:.1f} MB" if megabytes < 10 else f"{megabytes:.0f} MB"
    return f"| {name} | {origin} | {verified} | {size} | {weights.licence} |"


def test_the_page_has_the_codes_tables():
    section = PAGE.partition("## ControlNet")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    head = "| control type | ControlNet | annotator's weights |"
    files_head = "| file | origin | verified by | size | licence forbids |"
    assert rows == [
        head,
        *map(type_row, CLASSIC),
        head,
        *map(type_row, EXTENDED),
        files_head,
        *map(file_row, FILES),
    ]


@pytest.mark.parametrize("weights", FILES, ids=lambda weights: weights.file)
def test_every_file_says_where_it_is_from_and_how_it_is_verified(weights: Weights):
    assert weights.size_bytes > 0
    assert re.fullmatch(r"[\w.-]+\.(safetensors|pth|pt|bin)", weights.file)
    if weights.is_listed:
        assert not weights.sha256
    else:
        assert weights.url.startswith("https://huggingface.co/")
        assert re.fullmatch(r"|[0-9a-f]{64}", weights.sha256)
    assert weights.is_known_by_size == (not weights.is_listed and not weights.sha256)


def test_names_of_files_are_told_apart():
    assert len({each.file for each in FILES}) == len(FILES)


def test_licences_that_forbid_commercial_use_are_said():
    bound = {each.file for each in FILES if each.licence}
    assert bound == {
        "body_pose_model.pth",
        "hand_pose_model.pth",
        "facenet.pth",
        "table5_pidinet.pth",
        "teed_7_model.pth",
        "depth_anything_v2_vitl.pth",
    }
