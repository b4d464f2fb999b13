"""The files that control types need: weights of annotators, and ControlNets that no list has.

Origins are those of the programs that other workers draw with. Where no sha256 could be established
it is "": such a file is verified by its size and format alone, and whoever asks is told so.
"""

from __future__ import annotations

from dataclasses import dataclass

NON_COMMERCIAL = "no commercial use"
SIZE_TOLERANCE = 0.25  # of a size that is known from counts of weights or by hearsay


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a network: one file, where it comes from, and the hash of what is in it.

    `url` is "" for a file that the horde's own list has, with its address and sha256. `size_bytes`
    is about how large it is. `licence` is "" where it allows commercial use as far as is known.
    """

    file: str
    url: str
    sha256: str = ""
    size_bytes: int = 0
    licence: str = ""

    @property
    def is_listed(self) -> bool:
        return not self.url

    @property
    def is_known_by_size(self) -> bool:
        """Whether its size and its format are all that it can be verified by."""
        return not self.is_listed and not self.sha256


def may_have_size(size_bytes: int, expected_bytes: int) -> bool:
    """Whether a file of this size may be one that is about as large as expected."""
    return abs(size_bytes - expected_bytes) <= SIZE_TOLERANCE * expected_bytes


_HUB = "https://huggingface.co"
_MB = 10**6


def _annotator(file: str, sha256: str, megabytes: float, licence: str = "") -> Weights:
    """A file of the collection that ControlNet's author keeps for all annotators."""
    url = f"{_HUB}/lllyasviel/Annotators/resolve/main/{file}"
    return Weights(file, url, sha256, int(megabytes * _MB), licence)


def _of_transformers(repository: str, file: str, megabytes: float) -> Weights:
    """A repository's one file of weights, called after the repository."""
    name = repository.rpartition("/")[2].lower() + file[file.rindex(".") :]
    url = f"{_HUB}/{repository}/resolve/main/{file}"
    return Weights(name, url, size_bytes=int(megabytes * _MB))


HED = _annotator(
    "ControlNetHED.pth", "5ca93762ffd68a29fee1af9d495bf6aab80ae86f08905fb35472a083a4c7a8fa", 29.4
)
LERES = _annotator(
    "res101.pth", "1d696b2ef3e8336b057d0c15bc82d2fecef821bfebe5ef9d7671a5ec5dde520b", 531
)
MIDAS = _annotator(
    "dpt_hybrid-midas-501f0c75.pt",
    "501f0c75b3bca7daec6b3682c5054c09b366765aef6fa3a09d03a5cb4b230853",
    493,
)
OPENPOSE = (
    _annotator(
        "body_pose_model.pth",
        "25a948c16078b0f08e236bda51a385d855ef4c153598947c28c0d47ed94bb746",
        209,
        NON_COMMERCIAL,
    ),
    _annotator(
        "hand_pose_model.pth",
        "b76b00d1750901abd07b9f9d8c98cc3385b8fe834a26d4b4f0aad439e75fc600",
        147,
        NON_COMMERCIAL,
    ),
    _annotator(
        "facenet.pth",
        "8beb52e548624ffcc4aed12af7aee7dcbfaeea420c75609fee999fe7add79d43",
        154,
        NON_COMMERCIAL,
    ),
)
MLSD = _annotator(
    "mlsd_large_512_fp32.pth",
    "5696f168eb2c30d4374bbfd45436f7415bb4d88da29bea97eea0101520fba082",
    6.3,
)
UPERNET = Weights(
    "upernet-convnext-small.bin",
    f"{_HUB}/openmmlab/upernet-convnext-small/resolve/main/pytorch_model.bin",
    "76c163aa531ab7edfb3a77bbcc039e340645aa0ffe2b0ffcfc68755f550c76ea",
    328 * _MB,
)
LINE_ART = _annotator(
    "sk_model.pth", "c686ced2a666b4850b4bb6ccf0748031c3eda9f822de73a34b8979970d90f0c6", 17.2
)
ANIME_LINES = _annotator(
    "netG.pth", "ccabdcc3f5cf3c07cf65d58776acb21df7dfda825cdc70c9766a93fd62bfc488", 218
)
MANGA_LINES = _annotator(
    "erika.pth", "badbd6baf013cefbd98993307b02cc14a26c770d067416e4fdecc8720b88feeb", 173
)
PIDINET = _annotator(
    "table5_pidinet.pth",
    "80860ac267258b5f27486e0ef152a211d0b08120f62aeb185a050acc30da486c",
    2.9,
    NON_COMMERCIAL,
)
TEED = Weights(
    "teed_7_model.pth",
    f"{_HUB}/bdsqlsz/qinglong_controlnet-lllite/resolve/main/Annotators/7_model.pth",
    "b9037964149c55156c6adbffdfbd7e8ca7d2ef2a4d90573520efa7f3a1aacf06",
    250_000,
    NON_COMMERCIAL,
)
NORMAL_BAE = _annotator(
    "scannet.pt", "03dbf1600c51ee3d45c29f77b77bf1a3b7a24c3452dba62a4ae658f37330c209", 291
)
ZOE = _of_transformers("Intel/zoedepth-nyu-kitti", "model.safetensors", 1380)
DEPTH_ANYTHING = _of_transformers("LiheYoung/depth-anything-large-hf", "model.safetensors", 1341)
DEPTH_ANYTHING_V2 = Weights(
    "depth_anything_v2_vitl.pth",
    f"{_HUB}/depth-anything/Depth-Anything-V2-Large/resolve/main/depth_anything_v2_vitl.pth",
    "a7ea19fa0ed99244e67b624c72b8580b7e9553043245905be58796a608eb9345",
    1341 * _MB,
    NON_COMMERCIAL,
)
ONEFORMER_ADE20K = _of_transformers(
    "shi-labs/oneformer_ade20k_swin_large", "pytorch_model.bin", 880
)
ONEFORMER_COCO = _of_transformers("shi-labs/oneformer_coco_swin_large", "pytorch_model.bin", 880)


def _listed(name: str) -> Weights:
    """A ControlNet of the horde's own list, which has its address and its sha256."""
    return Weights(f"{name}.safetensors", "", size_bytes=723 * _MB)


def _version_1_1(name: str) -> Weights:
    file = f"{name}.safetensors"
    url = f"{_HUB}/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/{file}"
    return Weights(file, url, size_bytes=723 * _MB)


CANNY_NET = _listed("diff_control_sd15_canny_fp16")
HED_NET = _listed("diff_control_sd15_hed_fp16")
DEPTH_NET = _listed("diff_control_sd15_depth_fp16")
NORMAL_NET = _listed("control_normal_fp16")
OPENPOSE_NET = _listed("control_openpose_fp16")
SEG_NET = _listed("control_seg_fp16")
SCRIBBLE_NET = _listed("control_scribble_fp16")
MLSD_NET = _listed("control_mlsd_fp16")
LINE_ART_NET = _version_1_1("control_v11p_sd15_lineart_fp16")
ANIME_NET = _version_1_1("control_v11p_sd15s2_lineart_anime_fp16")
NORMAL_BAE_NET = _version_1_1("control_v11p_sd15_normalbae_fp16")
TILE_NET = _version_1_1("control_v11f1e_sd15_tile_fp16")
SHUFFLE_NET = _version_1_1("control_v11e_sd15_shuffle_fp16")
RECOLOR_NET = Weights(
    "ioclab_sd15_recolor.safetensors",
    f"{_HUB}/lllyasviel/sd_control_collection/resolve/main/ioclab_sd15_recolor.safetensors",
    size_bytes=723 * _MB,
)
COLOR_ADAPTER = Weights(
    "t2iadapter_color_sd14v1.pth",
    f"{_HUB}/TencentARC/T2I-Adapter/resolve/main/models/t2iadapter_color_sd14v1.pth",
    size_bytes=75 * _MB,
)
