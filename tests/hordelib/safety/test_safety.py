"""The judges: NudeNet on real pictures, and what becomes of a checker's findings.

The real horde_safety has tests/hordelib/safety/test_horde_safety.py, where it is installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from hordelib.errors import JudgeFailed
from hordelib.job.control_weights import Weights
from hordelib.job.images import Picture
from hordelib.safety.csam import FOLDER, WEIGHTS, HordeSafetyJudge
from hordelib.safety.nudenet import EXPOSED, Detection, NudeNetJudge, verdict_of
from hordelib.safety.verdict import Judge, JudgePanel, Verdict, joint
from tests.support.owner import PROJECT
from tests.support.safety_stand_in import PLAIN, ObedientChecker, install, put_weights
from worker.safety.policy import missing


@pytest.fixture(scope="module")
def nudenet() -> NudeNetJudge:
    return NudeNetJudge()


@pytest.fixture
def obedient(tmp_path: Path) -> HordeSafetyJudge:
    return HordeSafetyJudge(ObedientChecker(tmp_path))


def picture_of(image: Image.Image) -> Picture:
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    return Picture(image.width, image.height, image.convert(mode).tobytes(), seed=1, mode=mode)


class Seen:
    """Finds nothing, and keeps what it was shown."""

    name = "a judge that looks"

    def __init__(self) -> None:
        self.pictures: list[Picture] = []

    def judge(self, picture: Picture, prompt: str) -> Verdict:
        self.pictures.append(picture)
        return Verdict()


def portrait() -> Image.Image:
    """A woman's face, drawn as plainly as NudeNet still takes it for one."""
    image = Image.new("RGB", (256, 256), (120, 140, 160))
    draw = ImageDraw.Draw(image)
    draw.ellipse((60, 20, 196, 210), fill=(60, 40, 30))
    draw.rectangle((60, 110, 196, 230), fill=(60, 40, 30))
    draw.rectangle((108, 190, 148, 256), fill=(204, 152, 120))
    draw.ellipse((40, 226, 216, 330), fill=(150, 40, 50))
    draw.ellipse((78, 50, 178, 206), fill=(224, 172, 140))
    for x in (105, 151):
        draw.ellipse((x - 14, 108, x + 14, 124), fill="white")
        draw.ellipse((x - 6, 109, x + 6, 123), fill=(60, 80, 60))
        draw.arc((x - 18, 90, x + 18, 116), 200, 340, fill=(50, 30, 20), width=5)
    draw.polygon([(128, 115), (118, 150), (138, 150)], fill=(209, 157, 125))
    draw.ellipse((108, 164, 148, 180), fill=(170, 60, 70))
    return image.filter(ImageFilter.GaussianBlur(3))


def test_what_the_demo_shows_is_safe_for_work(nudenet: NudeNetJudge):
    picture = picture_of(Image.open(PROJECT / "docs" / "demo.png").convert("RGB"))
    assert nudenet.judge(picture, "") == Verdict()


def test_nudenet_sees_a_face_and_does_not_mind_it(nudenet: NudeNetJudge):
    (face,) = nudenet.detect(picture_of(portrait()))
    assert face.part == "FACE_FEMALE"
    assert face.score > 0.6
    assert nudenet.judge(picture_of(portrait()), "naked") == Verdict()


def test_nudenet_gets_red_as_red(nudenet: NudeNetJudge):
    red, green, blue = portrait().split()
    swapped = picture_of(Image.merge("RGB", (blue, green, red)))
    (face,) = nudenet.detect(picture_of(portrait()))
    assert all(found.score < face.score for found in nudenet.detect(swapped))


def test_what_opacity_hides_is_judged_too(nudenet: NudeNetJudge):
    hidden = portrait()
    hidden.putalpha(0)
    assert nudenet.detect(picture_of(hidden)) == nudenet.detect(picture_of(portrait()))


def test_what_opacity_draws_is_judged_as_it_shows_on_a_background(nudenet: NudeNetJudge):
    """A face that is nothing but opacity, over one colour: no judge of colours would see it."""
    drawn = Image.new("RGBA", portrait().size, "black")
    drawn.putalpha(ImageOps.invert(portrait().convert("L")))
    seen = Seen()
    JudgePanel([seen]).judge(picture_of(drawn), "")
    colours, shown = seen.pictures
    assert not nudenet.detect(colours)
    assert [found.part for found in nudenet.detect(shown)] == ["FACE_FEMALE"]
    seen.pictures.clear()
    JudgePanel([seen]).judge(picture_of(portrait()), "")
    assert len(seen.pictures) == 1


@pytest.mark.parametrize("size", [(64, 64), (64, 1024), (1, 1)])
def test_pictures_of_any_size_are_judged(nudenet: NudeNetJudge, size: tuple[int, int]):
    assert nudenet.judge(picture_of(Image.new("RGB", size, "teal")), "") == Verdict()


@pytest.mark.parametrize("part", EXPOSED)
def test_an_exposed_part_counts_from_its_threshold_on(part: str):
    threshold = EXPOSED[part]
    assert not verdict_of([Detection(part, threshold - 0.01)]).nsfw
    verdict = verdict_of([Detection("FACE_MALE", 0.9), Detection(part, threshold)])
    assert verdict == Verdict(nsfw=True, reasons=(f"NudeNet: {part} {threshold:.2f}",))


@pytest.mark.parametrize(
    "part", ["FACE_FEMALE", "MALE_BREAST_EXPOSED", "BELLY_EXPOSED", "FEMALE_BREAST_COVERED"]
)
def test_what_is_seen_on_every_beach_is_safe_for_work(part: str):
    assert verdict_of([Detection(part, 1.0)]) == Verdict()


@pytest.mark.parametrize(
    ("prompt", "nsfw", "csam"),
    [("a cat", False, False), ("nsfw", True, False), ("csam", True, True)],
)
def test_horde_safety_is_believed(obedient: HordeSafetyJudge, prompt: str, nsfw: bool, csam: bool):
    verdict = obedient.judge(PLAIN, prompt)
    assert (verdict.nsfw, verdict.csam) == (nsfw, csam)
    assert len(verdict.reasons) == nsfw + csam


def test_a_checker_that_could_not_tell_accuses_nobody(obedient: HordeSafetyJudge):
    with pytest.raises(JudgeFailed, match="could not judge"):
        obedient.judge(PLAIN, "undecided")


def test_a_picture_is_judged_by_all_or_not_at_all(
    obedient: HordeSafetyJudge, nudenet: NudeNetJudge
):
    judges: list[Judge] = [nudenet, obedient]
    bench = JudgePanel(judges)
    assert bench.name == "NudeNet, horde_safety"
    assert bench.judge(PLAIN, "csam").csam
    with pytest.raises(JudgeFailed):
        bench.judge(PLAIN, "undecided")


def test_what_one_judge_finds_counts():
    found = Verdict(nsfw=True, csam=False, reasons=("a",))
    assert joint([Verdict(), found, Verdict(reasons=("b",))]) == Verdict(
        nsfw=True, csam=False, reasons=("a", "b")
    )


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder where nothing is missing for horde_safety."""
    install(monkeypatch)
    put_weights(tmp_path, monkeypatch)
    return tmp_path


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_that_are_missing_or_damaged_are_named_with_the_remedy(
    models: Path, weights: Weights
):
    assert missing(models) == ""
    file = models / FOLDER / weights.file
    file.write_bytes(b"another file")
    assert f"{file} is damaged" in missing(models)
    file.unlink()
    told = missing(models)
    assert str(models / FOLDER) in told
    assert "fetch --safety" in told
    assert "20 MB of packages, 1.6 GB of weights and 3.5 GB of memory" in told
    assert "horde_safety" not in sys.modules  # only the judge's child may import it


def test_a_package_that_is_not_installed_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "path", [str(PROJECT)])
    told = missing(tmp_path)
    assert "not installed: run ./update-runtime.sh --safety" in told
    assert "1.6 GB of weights" in told
