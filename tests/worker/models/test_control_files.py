"""Files of control types: when they are offered, and how those without a sha256 are verified."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path, PurePosixPath

import pytest

from hordelib.errors import DownloadRefused, ModelBroken
from hordelib.files.model import Model
from hordelib.job.control_types import CLASSIC, EXTENDED, ControlType, files_of
from hordelib.job.families import SD1, SDXL
from tests.support.civitai_server import safetensors
from tests.support.reference_server import STEP_BYTES, ReferenceServer, reference_server
from worker.cli.check import Verdict, control_files
from worker.cli.named_models import meant_entries
from worker.config.keys import BridgeConfig
from worker.models.capabilities import (
    Capability,
    Installed,
    capabilities,
    lacks_extended_control,
)
from worker.models.files.control_files import annotator_entries, control_net_entries
from worker.models.files.fetching import FileFetcher
from worker.models.files.on_disk import State, make_plan
from worker.models.inventory import ModelsFolder
from worker.models.reference import Kind, ReferenceEntry, ReferenceFile

FILE = "t2iadapter_color_sd14v1.pth"


def configured(**more: object) -> BridgeConfig:
    return BridgeConfig.model_validate({"api_key": "a-key", "dreamer_name": "tester"} | more)


def put(folder: Path, controls: Iterable[ControlType]) -> None:
    """Every file that these types need, as large as it should be, of nothing."""
    for file in (file for control in controls for file in files_of(folder, control)):
        file.path.parent.mkdir(parents=True, exist_ok=True)
        with file.path.open("wb") as empty:
            empty.truncate(file.weights.size_bytes)


def control_kinds(folder: Path, **more: object) -> list[Capability]:
    models = [Model("Mine", SD1, {})]
    found = capabilities(configured(**more), Installed(folder), models)
    return [each for each in found if each.flag.endswith("controlnet") and "sdxl" not in each.flag]


# ---- when they are offered -------------------------------------------------------------------


def test_each_group_is_offered_when_all_that_it_stands_for_is_there(tmp_path: Path):
    classic, extended = control_kinds(tmp_path)
    assert not classic.is_offered
    assert not extended.is_offered
    assert "controlnet/control_mlsd_fp16.safetensors" in classic.missing
    assert classic.missing.endswith("(7.7 GB)")
    assert "first nine" in extended.missing
    put(tmp_path, CLASSIC)
    classic, extended = control_kinds(tmp_path)
    assert classic.is_offered
    assert not extended.is_offered
    assert "controlnet/annotators/erika.pth" in extended.missing
    assert extended.missing.endswith("(10.9 GB)")
    put(tmp_path, EXTENDED)
    assert all(each.is_offered for each in control_kinds(tmp_path))
    assert lacks_extended_control(Installed(tmp_path), {SD1}) == ""


def test_a_file_that_turned_out_to_be_broken_keeps_its_group_away(tmp_path: Path):
    put(tmp_path, ControlType)
    broken = frozenset([tmp_path / "controlnet" / "annotators" / "erika.pth"])
    assert "erika.pth" in lacks_extended_control(Installed(tmp_path, broken), {SD1})


@pytest.mark.parametrize("file", [FILE, "annotators/teed_7_model.pth", "annotators/facenet.pth"])
def test_one_file_that_is_missing_keeps_a_whole_group_away(tmp_path: Path, file: str):
    put(tmp_path, ControlType)
    (tmp_path / "controlnet" / file).unlink()
    assert not all(each.is_offered for each in control_kinds(tmp_path))
    assert file in " ".join(each.missing for each in control_kinds(tmp_path))


def test_a_file_without_sha256_of_another_size_counts_as_missing(tmp_path: Path):
    put(tmp_path, ControlType)
    (tmp_path / "controlnet" / FILE).write_bytes(b"<html>a login page</html>")
    assert FILE in lacks_extended_control(Installed(tmp_path), {SD1})


def test_the_owner_turns_off_either_group(tmp_path: Path):
    put(tmp_path, ControlType)
    offered = [each.is_offered for each in control_kinds(tmp_path, allow_controlnet=False)]
    assert offered == [False, False]
    kinds = control_kinds(tmp_path, allow_extended_controlnet=False)
    assert [each.is_offered for each in kinds] == [True, False]
    assert [each.missing for each in kinds] == ["", ""]


def test_families_without_control_nets_are_offered_none(tmp_path: Path):
    put(tmp_path, ControlType)
    assert lacks_extended_control(Installed(tmp_path), {SDXL})


# ---- what check says -------------------------------------------------------------------------


def test_check_says_what_is_known_by_its_size_what_is_damaged_and_what_licences_forbid(
    tmp_path: Path,
):
    folder = ModelsFolder.of(configured(cache_home=str(tmp_path)), tmp_path)
    assert list(control_files(folder)) == []
    annotators = folder.path / "controlnet" / "annotators"
    annotators.mkdir(parents=True)
    (annotators / "facenet.pth").write_bytes(b"something else")
    (annotators / "depth-anything-large-hf.safetensors").write_bytes(b"too small")
    found = {(each.name, each.verdict): each for each in control_files(folder)}
    assert found["control types", Verdict.failed].remedy.startswith("remove it, and run")
    by_size = found["control types", Verdict.ok].detail
    assert "size and format alone" in by_size
    assert "depth-anything-large-hf.safetensors" in by_size
    assert found["licences", Verdict.ok].detail == "no commercial use: facenet.pth"
    told = [each.detail for each in control_files(folder) if each.verdict is Verdict.failed]
    assert len(told) == 2


def test_every_file_that_no_list_has_can_be_added_by_its_name(tmp_path: Path):
    folder = ModelsFolder.of(configured(cache_home=str(tmp_path), model_reference="none"), tmp_path)
    entries = folder.reference().entries
    ours = [*annotator_entries(), *control_net_entries()]
    assert len(ours) == 19 + 7
    assert all(entries[entry.name] == entry for entry in ours)
    reference = folder.reference()
    groups = {
        group: {row.name for row in meant_entries(folder, reference, [group])}
        for group in ("annotators", "controlnets", "extended controlnets")
    }
    assert len(groups["annotators"]) == 8
    assert groups["annotators"] == groups["controlnets"]  # no list has told of the others
    assert groups["extended controlnets"] == {row.name for row in ours} - groups["controlnets"]
    plan = make_plan([folder.look(entry) for entry in ours], (), 10**12)
    assert plan.refused == ()
    assert plan.to_come_bytes > 10**10


# ---- downloads without a sha256 --------------------------------------------------------------


@pytest.fixture
def site() -> Generator[ReferenceServer]:
    with reference_server() as site:
        yield site


@pytest.fixture
def folder(tmp_path: Path) -> ModelsFolder:
    config = configured(cache_home=str(tmp_path), model_reference="none")
    return ModelsFolder.of(config, tmp_path)


@pytest.fixture
def fetcher(folder: ModelsFolder) -> FileFetcher:
    return folder.fetcher()


CONTENT = safetensors(150_000, b"x")


def entry(site: ReferenceServer, content: bytes, size_bytes: int = 151_000) -> ReferenceEntry:
    site.files["/files/net.safetensors"] = content
    file = ReferenceFile(
        path=PurePosixPath(Kind.control_net) / "net.safetensors",
        url=f"{site.url}/files/net.safetensors",
        size_bytes=size_bytes,
        by_size=True,
    )
    return ReferenceEntry(name="net", kind=Kind.control_net, files=(file,), size_bytes=size_bytes)


def test_a_file_without_sha256_is_downloaded_and_verified_by_size_and_format(
    site: ReferenceServer, folder: ModelsFolder, fetcher: FileFetcher
):
    row = entry(site, CONTENT)
    assert folder.look(row).is_wanting
    assert not folder.look(row).lacks_checksum
    fetcher.complete(folder.look(row))
    assert folder.look(row).state is State.plausible
    assert (folder.path / "controlnet" / "net.safetensors").read_bytes() == CONTENT
    fetcher.complete(folder.look(row))  # what is there is not fetched again
    assert site.answers("/files/net.safetensors") == [200]


def test_it_is_continued_where_it_broke_off(
    site: ReferenceServer, folder: ModelsFolder, fetcher: FileFetcher
):
    row = entry(site, CONTENT)
    part = folder.path / "controlnet" / "net.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:STEP_BYTES])
    fetcher.complete(folder.look(row))
    assert site.answers("/files/net.safetensors") == [206]
    assert folder.look(row).state is State.plausible


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (CONTENT[:100_000], "not about 151 kB"),
        (b"<html>" + b" " * 150_000, "a web page"),
        (CONTENT[:-200], "net.safetensors"),
    ],
    ids=["another size", "a web page", "cut off"],
)
def test_what_is_no_such_file_never_appears(
    site: ReferenceServer, folder: ModelsFolder, fetcher: FileFetcher, content: bytes, told: str
):
    row = entry(site, content)
    with pytest.raises(DownloadRefused, match=told):
        fetcher.complete(folder.look(row))
    assert folder.look(row).state is State.missing
    target = folder.path / "controlnet" / "net.safetensors"
    target.write_bytes(content)
    assert folder.look(row).state is State.other
    with pytest.raises(ModelBroken, match="damaged, or another file"):
        fetcher.complete(folder.look(row))
