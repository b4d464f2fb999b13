"""The keys of bridgeData.yaml that say as whom this worker serves, and which requests it takes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, StrictInt

from hordelib.job.control_types import ControlType
from worker.config.card_keys import CardKeys, Cards
from worker.config.values import (
    ApiKey,
    Baseline,
    BlacklistWord,
    CensoredWords,
    FormWord,
    ModelName,
    OwnerPath,
    SingleModel,
    TextAddress,
    TextApi,
    Token,
    Username,
    WorkerName,
    YesNo,
    expects,
    whole,
)


class CustomModel(BaseModel):
    """A checkpoint file that no reference lists; `baseline` in the horde's own spelling."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[SingleModel, expects("a name of 3 to 255 characters that is no group's")]
    baseline: Annotated[
        Baseline,
        expects(
            "stable diffusion 1, stable diffusion 2, stable_diffusion_xl, stable_cascade, flux_1, "
            "qwen_image or z_image_turbo"
        ),
    ]
    filepath: Annotated[OwnerPath, expects("the path of the file")]


class ServedKeys(BaseModel):
    """Names, models, and what is taken of pictures, forms and texts."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    api_key: Annotated[
        ApiKey,
        expects(
            "the key of your account, not a shared one (https://aihorde.net/register gives one)"
        ),
    ]
    """The account that owns this worker and earns its kudos."""
    dreamer_name: Annotated[
        WorkerName,
        expects("1 to 100 characters without colab, tpu or google (the horde refuses these)"),
    ]
    """The worker's name, unique in the whole horde."""
    models_to_load: Annotated[
        tuple[ModelName, ...],
        expects(
            'a list of at most 300 model names of 3 to 255 characters, or groups like "top 2"',
            max_length=300,
        ),
    ] = ()
    """The models that are offered, as the horde spells them. Groups: docs/models.md."""
    models_to_skip: Annotated[
        tuple[ModelName, ...], expects("a list of model names of 3 to 255 characters, or groups")
    ] = ()
    """Models that are never offered, whatever the other keys say."""
    load_large_models: YesNo = False
    """true: groups of models include the families that are larger than SDXL, too; a name
    always counts."""
    dynamic_models: YesNo = False
    """true: models with long queues are offered beside those of models_to_load, and downloaded
    for that."""
    number_of_dynamic_models: Annotated[StrictInt, whole(0, 100)] = 0
    """How many models the queues choose; 0 is none."""
    max_models_to_download: Annotated[StrictInt, whole(0, 1000)] = 10
    """Once so many of the horde's models are on disk, dynamic_models downloads no more."""
    custom_models: Annotated[
        tuple[CustomModel, ...],
        expects(
            "a list of {name, baseline, filepath}; baseline is stable diffusion 1, "
            "stable diffusion 2, stable_diffusion_xl, stable_cascade, flux_1, qwen_image, "
            "z_image_turbo, krea2_turbo or anima"
        ),
    ] = ()
    """Checkpoint files of your own. The horde takes them from accounts with its customizer role
    alone, which its moderators give."""
    alchemist_name: Annotated[
        WorkerName | None,
        expects("a name of its own of 1 to 100 characters, other than dreamer_name"),
    ] = None
    """The name under which this worker serves forms of alchemy too. Not set: it serves none."""
    forms: Annotated[
        tuple[FormWord, ...],
        expects(
            "a list of the horde's forms such as nsfw, palette or RealESRGAN_x4plus; "
            "post-process stands for all upscalers, face fixers and strip_background"
        ),
    ] = ()
    """The forms that are offered, as far as their files are there. Empty: all that can be."""
    annotation_types: Annotated[
        tuple[ControlType, ...],
        expects("a list of the horde's control types such as canny or depth"),
    ] = ()
    """The types of annotation that are offered. Empty: all whose files are there."""
    max_tiles: Annotated[StrictInt, whole(1, 256)] = 16
    """Largest picture for alchemy, in tiles of 512x512 pixels; 16 is 2048x2048. Above 64 means 64,
    as no larger pictures are read."""
    alchemist_only: YesNo = False
    """true: no pictures are made, only forms of alchemy, and texts where scribe_name is set."""
    aesthetic_score: YesNo = False
    """true: the horde is told with each picture how beautiful LAION's predictor finds it, as far as
    its files are there (models add aesthetic_head clip_vit_l_14)."""
    scribe_name: Annotated[
        WorkerName | None,
        expects("a name of its own of 1 to 100 characters, other than the other workers' names"),
    ] = None
    """The name under which this worker serves texts too. Not set: it serves none."""
    text_backend: Annotated[
        TextAddress | None,
        expects("the address of your text server, such as http://127.0.0.1:5001"),
    ] = None
    """The text server that writes what the scribe serves (docs/scribe.md)."""
    text_api: Annotated[TextApi, expects("auto, kobold or openai")] = "auto"
    """What the text server speaks: KoboldAI's API, or completions as OpenAI's. auto: it is
    asked."""
    text_key: Annotated[Token | None, expects("the key of your text server, without spaces")] = None
    """Sent to the text server alone, as a bearer token."""
    text_model: Annotated[
        ModelName | None, expects("a name of 3 to 255 characters, such as koboldcpp/Tiefighter-13B")
    ] = None
    """The name under which the horde knows the text server's model. Not set: as the server says."""
    branded_model: YesNo = False
    """true: the model's name ends with your user name, so that it is asked for as yours alone."""
    max_length: Annotated[
        StrictInt | None, expects("a whole number of tokens from 16 to 4096", ge=16, le=4096)
    ] = None
    """Longest text. Not set: as the text server says, 512 where it does not. What would take too
    long at the measured speed is not offered."""
    max_context_length: Annotated[
        StrictInt | None, expects("a whole number of tokens from 80 to 1048576", ge=80, le=1048576)
    ] = None
    """Longest prompt and text together. Not set: as the server says, or 2048."""
    text_threads: Annotated[StrictInt, whole(1, 20)] = 1
    """Texts that are asked of the text server at once."""
    scribe_only: YesNo = False
    """true: no pictures are made and no forms, only texts; no engine and no judge is started."""
    max_power: Annotated[StrictInt, whole(1, 512)] = 8
    """Largest picture: 64 x 64 x 8 x max_power pixels. 8 is 512x512, 32 is 1024x1024."""
    max_batch: Annotated[StrictInt, whole(1, 20)] = 4
    """Most pictures per request. More is faster where the card has memory for it; check says how
    many fit."""
    queue_size: Annotated[StrictInt, whole(0, 4)] = 1
    """How many jobs to fetch ahead for each device. 1 suits most."""
    devices: Annotated[
        Cards,
        expects(
            "all, or a list of cards by their numbers ([0, 2]) or UUIDs, or of {card, name, "
            "max_power, max_batch, vram_to_leave_free, models_to_load}"
        ),
    ] = ()
    """The graphics cards that make pictures, as nvidia-smi numbers them, and what differs from
    card to card (docs/cards.md). Not set, or all: each that this machine has."""
    nsfw: YesNo = True
    """false: requests marked as not safe for work are not taken, and pictures found to be so
    are replaced by a plain card."""
    censor_nsfw: YesNo = False
    """true: pictures found not safe for work are replaced by a plain card."""
    censorlist: Annotated[
        tuple[CensoredWords, ...],
        expects(
            "a list of words or phrases of at most 100 characters, each with a letter or digit"
        ),
    ] = ()
    """Pictures with one of these in their prompt are replaced by a plain card; whole words
    count, in any letter case."""
    safety: Annotated[
        Literal["required", "best_effort"] | None, expects("required or best_effort")
    ] = None
    """required: nothing is served without horde_safety, which finds images of child abuse (CSAM).
    best_effort: it serves without, and warns at start and in `check` unless the horde runs on this
    machine. Not set: required at aihorde.net, and best_effort at a horde of your own."""
    blacklist: Annotated[
        tuple[BlacklistWord, ...],
        expects("a list of at most 200 words of 1 to 15 characters", max_length=200),
    ] = ()
    """Requests with one of these words in their prompt are not taken."""
    priority_usernames: Annotated[
        tuple[Username, ...], expects("a list of user names with their number, such as db0#1")
    ] = ()
    """Requests of these users come first; yours always do."""
    require_upfront_kudos: YesNo = False
    """true: only requests whose sender can pay at once are taken."""
    allow_unsafe_ip: YesNo = True
    """false: image to image requests sent through a VPN are not taken."""
    allow_img2img: YesNo = True
    """false: no jobs that start from a picture."""
    allow_painting: YesNo = True
    """false: no inpainting and outpainting jobs."""
    allow_post_processing: YesNo = True
    """false: no upscaling, face fixing and background removal. Offered when all their files are
    there; `check` names those that are missing."""
    allow_controlnet: YesNo = True
    """false: no ControlNet jobs. Offered when the files of the horde's first nine control types are
    there; `check` names those that are missing."""
    allow_extended_controlnet: YesNo = True
    """false: of ControlNet jobs only those of the first nine control types. The other 25 are
    offered when the files of all of them are there; `check` names those that are missing."""
    allow_sdxl_controlnet: YesNo = False
    """true: QR code jobs for SDXL models, and transparent pictures. Offered when the files of
    both are there; `check` names those that are missing."""
    allow_lora: YesNo = True
    """false: no jobs with LoRAs. Those that are not on disk come from CivitAI."""
    max_lora_cache_size: Annotated[StrictInt, whole(1, 2048, " of GB")] = 10
    """Disk space for downloaded LoRAs; the least recently used go first."""
    civitai_api_token: Annotated[
        Token | None, expects("your token of civitai.com, without spaces")
    ] = None
    """Lets CivitAI hand out LoRAs that need an account; sent to nobody else."""
    extra_slow_worker: YesNo = False
    """true: three times the time limit, and only requests that accept slow workers."""
    limit_max_steps: YesNo = False
    """true: requests with more steps than usual for their model are not taken."""

    @property
    def max_pixels(self) -> int:
        """Largest width x height that is offered (the horde's own formula of max_power)."""
        return 64 * 64 * 8 * self.max_power

    @property
    def models(self) -> tuple[str, ...]:
        """Names and words to offer, each once, in the order of the file, without the skipped."""
        of_cards = (name for card in self.devices for name in card.models_to_load)
        custom = (model.name for model in self.custom_models)
        names = (*self.models_to_load, *of_cards, *custom)
        return tuple(name for name in dict.fromkeys(names) if name not in self.models_to_skip)

    @property
    def card_names(self) -> tuple[str, ...]:
        """Numbers and UUIDs of the cards that are named; none for all of them."""
        return tuple(card.card for card in self.devices)

    def of_card(self, card: CardKeys | None) -> Self:
        """With what differs for this card."""
        return self.model_copy(update=card.changes) if card else self

    @property
    def makes_pictures(self) -> bool:
        return not (self.alchemist_only or self.scribe_only)

    @property
    def serves_dynamically(self) -> bool:
        """Whether the horde's queues choose models too."""
        return self.dynamic_models and self.number_of_dynamic_models > 0
