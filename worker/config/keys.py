"""The keys of bridgeData.yaml: each one's type, bounds, default and words are in one place here.

docs/configuration.md holds the same for people; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StrictInt

from hordelib.job.control_types import ControlType
from worker.config.values import (
    AUTO,
    ApiKey,
    Baseline,
    BaseUrl,
    BlacklistWord,
    BridgeAgent,
    CardReserve,
    CensoredWords,
    FormWord,
    Hours,
    ListeningAddress,
    MemoryReserve,
    ModelName,
    NoticeKind,
    NotifyAddresses,
    OwnerPath,
    PageAddress,
    Password,
    ProgramName,
    ReferenceAddress,
    Reserve,
    SingleModel,
    TextAddress,
    TextApi,
    Token,
    Username,
    WorkerName,
    YesNo,
    expects,
    seconds,
    whole,
)

FOLDER = "the path of a folder"


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


class BridgeConfig(BaseModel):
    """What the owner wants. Below each key stands what its value does, as the docs say it."""

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
    """Longest prompt and text together. Not set: as the text server says, 2048 where it does
    not."""
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
    """How many jobs to fetch ahead. 1 suits most."""
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
    vram_to_leave_free: CardReserve = MemoryReserve.parse_cards(AUTO)
    """Memory of the graphics card that is left to other programs. auto: a tenth, and 700 MiB at
    most."""
    ram_to_leave_free: Reserve = MemoryReserve(percent=10)
    """Memory of the machine (RAM) that is left to other programs."""
    cache_home: Annotated[OwnerPath, expects(FOLDER)] = Path(".")
    """The folder that holds `models`, or that folder itself; relative to the home folder."""
    comfyui_path: Annotated[OwnerPath | None, expects(FOLDER)] = None
    """A ComfyUI of your own, 0.3.75 or 0.33.0, in place of the one set up for you."""
    preload_timeout: Annotated[StrictInt, seconds(15, 3600)] = 120
    """Seconds that reading a model and the prompts may take before the engine is restarted."""
    inference_step_timeout: Annotated[StrictInt, seconds(5, 600)] = 60
    """Seconds that one sampler step may take before the engine is restarted."""
    process_timeout: Annotated[StrictInt, seconds(30, 3600)] = 600
    """Seconds that a whole batch may take before the engine is restarted."""
    stop_timeout: Annotated[StrictInt, seconds(5, 3600)] = 60
    """Seconds that jobs in hand get when the worker is told to stop. What would take longer goes
    back to the horde, which asks another worker."""
    serve_hours: Annotated[
        tuple[Hours, ...],
        expects('a list of hours such as "mon-fri 22:00-07:00", "sat-sun" or "08:00-24:00"'),
    ] = ()
    """When the worker serves, in local time; outside of it the card is free. Not set: always."""
    pause_for: Annotated[
        tuple[ProgramName, ...],
        expects('a list of names of programs such as "steam*", of 1 to 100 characters'),
    ] = ()
    """While one of these programs runs, the card is free; * stands for any characters."""
    others_on_card: YesNo = False
    """true: while another program computes on the card, it is left to that. Games do not compute in
    this sense: name them in pause_for."""
    user_active: Annotated[StrictInt, whole(0, 1440, " of minutes")] = 0
    """The card is free until nobody has typed or moved the mouse for so many minutes. 0: whoever
    uses this machine does not matter."""
    on_battery: YesNo = False
    """true: while this machine runs on its battery, the card is free."""
    max_card_temperature: Annotated[
        StrictInt | None, expects("a whole number of °C from 40 to 110", ge=40, le=110)
    ] = None
    """A card that is as hot as this gets no new job until it is 5 °C cooler."""
    card_power_limit: Annotated[
        StrictInt | None, expects("a whole number of watts from 10 to 2000", ge=10, le=2000)
    ] = None
    """The watts that the card may take while the worker runs, where the driver allows that (most
    drivers: to root alone)."""
    notify: Annotated[
        NotifyAddresses,
        expects('a list of addresses of apprise, such as "ntfys://my-topic"', max_length=20),
    ] = ()
    """Where the worker writes to when it needs you, as docs/service.md explains. Empty: nowhere."""
    notify_skip: Annotated[
        tuple[NoticeKind, ...],
        expects(
            "a list of maintenance, stopped, disk, no_jobs, model_withdrawn and new_version, or of"
            " some of these"
        ),
    ] = ()
    """What notify stays silent about."""
    notify_no_jobs_hours: Annotated[StrictInt, whole(1, 168, " of hours")] = 6
    """After so many hours without a job notify writes, if the horde has requests for your
    models."""
    metrics: Annotated[
        ListeningAddress | None, expects("an address with a port, such as 127.0.0.1:7862")
    ] = None
    """Where programs that watch other programs find figures (/metrics, for Prometheus), /healthz
    and /readyz. Not set: nowhere."""
    metrics_key: Annotated[Token | None, expects("a key without spaces")] = None
    """The password of /metrics, as a bearer token. Not set: whoever reaches it may read it."""
    stats_output_frequency: Annotated[StrictInt, seconds(0, 86400)] = 30
    """Seconds between two lines of statistics; 0 for none."""
    horde_url: Annotated[
        BaseUrl,
        expects(
            "an address such as https://aihorde.net (http:// only for this machine or a private "
            "network address)"
        ),
    ] = "https://aihorde.net"
    """The horde that is served."""
    model_reference: Annotated[
        ReferenceAddress | None,
        expects(
            "none, or an address such as https://example.org/reference of a folder with the "
            "horde's JSON lists (stable_diffusion.json); one that ends with /v2 has the new names"
        ),
    ] = None
    """Where the list of models, their files and their sha256 comes from. Not set: the AI
    Horde's own; nowhere for a horde on this machine."""
    bridge_agent: Annotated[
        BridgeAgent | None, expects("name:version:url, at most 1000 characters")
    ] = None
    """How the worker introduces itself; the horde grants features, and shares of the rewards, by
    name and version. Not set: as the newest worker that it knows, or an older one where files are
    missing."""
    page: Annotated[
        PageAddress,
        expects('an address of this machine such as http://127.0.0.1:7861, or "" for no page'),
    ] = "http://127.0.0.1:7861"
    """Where a browser shows the worker (docs/page.md). Others than this machine come in by an
    address such as http://0.0.0.0:7861, and only with page_password."""
    page_password: Annotated[
        Password | None, expects("a password of 8 to 1000 characters, or the hash kept of one")
    ] = None
    """Whoever opens the page has to give it. The start of `run` puts a hash in its place."""
    auto_update: Annotated[Literal["tell", "drain", "never"], expects("tell, drain or never")] = (
        "tell"
    )
    """tell: check and the page name a newer release, which GitHub is asked for once a day. drain: a
    clone finishes what is in hand, takes it and starts again, too. never: nobody is asked."""
    show_pictures: YesNo = False
    """true: the page shows the last 12 pictures to whoever may open it, though the horde's users
    did not ask for them to be seen. They are kept in memory alone, small and without their prompts;
    those found not safe for work stay blurred."""
    notes: tuple[str, ...] = ()
    """Lines for the owner, shown once at start: old keys of the file and what became of them."""

    @property
    def max_pixels(self) -> int:
        """Largest width x height that is offered (the horde's own formula of max_power)."""
        return 64 * 64 * 8 * self.max_power

    @property
    def models(self) -> tuple[str, ...]:
        """Names and words to offer, each once, in the order of the file, without the skipped."""
        names = (*self.models_to_load, *(model.name for model in self.custom_models))
        return tuple(name for name in dict.fromkeys(names) if name not in self.models_to_skip)

    @property
    def makes_pictures(self) -> bool:
        return not (self.alchemist_only or self.scribe_only)

    @property
    def serves_dynamically(self) -> bool:
        """Whether the horde's queues choose models too."""
        return self.dynamic_models and self.number_of_dynamic_models > 0

    def models_folder(self, home: Path) -> Path:
        """The folder of model files. `home` is what a relative cache_home starts from."""
        cache = home / self.cache_home
        return cache if cache.name == "models" else cache / "models"


def _expected(model: type[BaseModel]) -> Mapping[str, str]:
    fields = model.model_fields.items()
    extras: dict[str, Any] = {name: field.json_schema_extra for name, field in fields}
    return {name: extra["expects"] for name, extra in extras.items() if extra}


SECRETS = frozenset(
    name
    for name, field in BridgeConfig.model_fields.items()
    if "SecretStr" in repr(field.annotation)
)  # whose values are never shown
EXPECTS = _expected(BridgeConfig)  # by the names of all keys: what completes "expected …"
CUSTOM_EXPECTS = _expected(CustomModel)
