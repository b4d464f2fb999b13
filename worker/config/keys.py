"""The tables behind bridgeData.yaml: every key that was ever known, and what is said about it.

docs/configuration.md holds the same rows for people; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

PROJECT_URL = "https://github.com/dreamer-horde/dreamer"
CLIENT_AGENT = f"Dreamer:0.1.0:{PROJECT_URL}"


@dataclass(frozen=True, slots=True)
class Key:
    """`expects` completes "expected …" where a value is wrong; `effect` is a sentence."""

    expects: str
    effect: str


_YES_NO = "true or false"
_MEMORY = 'a share ("20%", up to 95%), a size ("2 GiB", "512 MiB") or a number of MiB'
_FOLDER = "the path of a folder"

KEYS: Mapping[str, Key] = MappingProxyType(
    {
        "api_key": Key(
            "the key of your account, not a shared one (https://aihorde.net/register gives one)",
            "The account that owns this worker and earns its kudos.",
        ),
        "dreamer_name": Key(
            "1 to 100 characters without colab, tpu or google (the horde refuses these)",
            "The worker's name, unique in the whole horde.",
        ),
        "models_to_load": Key(
            'a list of at most 300 model names of 3 to 255 characters, or groups like "top 2"',
            "The models that are offered, as the horde spells them. Groups: docs/models.md.",
        ),
        "models_to_skip": Key(
            "a list of model names of 3 to 255 characters, or groups",
            "Models that are never offered, whatever the other keys say.",
        ),
        "load_large_models": Key(
            _YES_NO,
            "true: groups of models include Stable Cascade, Flux, Qwen-Image and Z-Image too; a "
            "name always counts.",
        ),
        "dynamic_models": Key(
            _YES_NO,
            "true: models with long queues are offered beside those of models_to_load, and "
            "downloaded for that.",
        ),
        "number_of_dynamic_models": Key(
            "a whole number from 0 to 100",
            "How many models the queues choose; 0 is none.",
        ),
        "max_models_to_download": Key(
            "a whole number from 0 to 1000",
            "With so many of the reference's models on disk, dynamic_models downloads no more.",
        ),
        "custom_models": Key(
            "a list of {name, baseline, filepath}; baseline is stable diffusion 1, "
            "stable diffusion 2, stable_diffusion_xl, stable_cascade, flux_1, qwen_image or "
            "z_image_turbo",
            "Checkpoint files of your own; the horde asks for the customizer role.",
        ),
        "max_power": Key(
            "a whole number from 1 to 512",
            "Largest picture: 64 x 64 x 8 x max_power pixels. 8 is 512x512, 32 is 1024x1024.",
        ),
        "max_batch": Key(
            "a whole number from 1 to 20",
            "Most pictures of one request to take at once: about max_batch x max_pixels / 3.5 "
            "pixels in all, as the horde counts, and at least one picture. What does not fit into"
            " memory at once is made in parts, with the same pictures; check says how many fit.",
        ),
        "queue_size": Key(
            "a whole number from 0 to 4",
            "Jobs that wait, prepared, while the device is busy; more (up to 7) where all of them"
            " take less than 10 seconds, so that jobs that agree share a batch. 0: none wait.",
        ),
        "nsfw": Key(
            _YES_NO,
            "false: requests marked as not safe for work are not taken, and pictures found to be "
            "so are replaced by a plain card.",
        ),
        "censor_nsfw": Key(
            _YES_NO, "true: pictures found not safe for work are replaced by a plain card."
        ),
        "censorlist": Key(
            "a list of words or phrases of at most 100 characters, each with a letter or digit",
            "Pictures with one of these in their prompt are replaced by a plain card; whole words "
            "count, in any letter case.",
        ),
        "safety": Key(
            "required or best_effort",
            "required: nothing is served without horde_safety, which finds CSAM. best_effort: it "
            "is, with a warning at start and in `check` unless the horde runs on this machine. "
            "Not set: required at aihorde.net, and best_effort at a horde of one's own.",
        ),
        "blacklist": Key(
            "a list of at most 200 words of 1 to 15 characters",
            "Requests with one of these words in their prompt are not taken.",
        ),
        "priority_usernames": Key(
            "a list of user names with their number, such as db0#1",
            "Requests of these users come first; yours always do.",
        ),
        "require_upfront_kudos": Key(
            _YES_NO, "true: only requests whose sender can pay at once are taken."
        ),
        "allow_unsafe_ip": Key(
            _YES_NO, "false: image to image requests sent through a VPN are not taken."
        ),
        "allow_img2img": Key(_YES_NO, "false: no jobs that start from a picture."),
        "allow_painting": Key(_YES_NO, "false: no inpainting and outpainting jobs."),
        "allow_post_processing": Key(
            _YES_NO,
            "false: no upscaling, face fixing and background removal. Offered when all their files "
            "are there; `check` names those that are missing.",
        ),
        "allow_controlnet": Key(
            _YES_NO,
            "false: no ControlNet jobs. Offered when the files of all control types are there; "
            "`check` names those that are missing.",
        ),
        "allow_sdxl_controlnet": Key(
            _YES_NO,
            "true: QR code jobs for SDXL models. Not offered yet: the horde's flag stands for "
            "transparent pictures too, which are not served.",
        ),
        "allow_lora": Key(
            _YES_NO, "false: no jobs with LoRAs. Those that are not on disk come from CivitAI."
        ),
        "max_lora_cache_size": Key(
            "a whole number of GB from 1 to 2048",
            "Disk space for downloaded LoRAs; the least recently used go first.",
        ),
        "civitai_api_token": Key(
            "your token of civitai.com, without spaces",
            "Lets CivitAI hand out LoRAs that need an account; sent to nobody else.",
        ),
        "extra_slow_worker": Key(
            _YES_NO,
            "true: three times the time limit, and only requests that accept slow workers.",
        ),
        "limit_max_steps": Key(
            _YES_NO, "true: requests with more steps than usual for their model are not taken."
        ),
        "vram_to_leave_free": Key(_MEMORY, "Device memory that is left to other programs."),
        "ram_to_leave_free": Key(_MEMORY, "Main memory that is left to other programs."),
        "cache_home": Key(
            _FOLDER,
            "The folder that holds `models`, or that folder itself; relative to the home folder.",
        ),
        "comfyui_path": Key(_FOLDER, "A ComfyUI of your own in place of the one set up for you."),
        "preload_timeout": Key(
            "a whole number of seconds from 15 to 3600",
            "Seconds until a batch's first step (model, prompts) before the engine is restarted.",
        ),
        "inference_step_timeout": Key(
            "a whole number of seconds from 5 to 600",
            "Seconds that one sampler step may take before the engine is restarted.",
        ),
        "process_timeout": Key(
            "a whole number of seconds from 30 to 3600",
            "Seconds that a whole batch may take before the engine is restarted.",
        ),
        "stop_timeout": Key(
            "a whole number of seconds from 5 to 3600",
            "Seconds that jobs in hand get when the worker is told to stop; the rest is faulted.",
        ),
        "stats_output_frequency": Key(
            "a whole number of seconds from 0 to 86400",
            "Seconds between two lines of statistics; 0 for none.",
        ),
        "horde_url": Key(
            "an address such as https://aihorde.net (http:// only for this machine or a private "
            "network address)",
            "The horde that is served.",
        ),
        "model_reference": Key(
            "none, or an address such as https://example.org/reference of a folder with the "
            "horde's JSON lists (stable_diffusion.json); one that ends with /v2 has the new names",
            "Where the list of models, their files and their sha256 comes from. Not set: the AI "
            "Horde's own; nowhere for a horde on this machine.",
        ),
        "bridge_agent": Key(
            "name:version:url, at most 1000 characters",
            "How the worker introduces itself; the horde grants features, and shares of the "
            "rewards, by name and version. Not set: as the newest worker that it knows, or an "
            "older one where files are missing.",
        ),
    }
)

# Old or other spelling → the key that is used now.
RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "worker_name": "dreamer_name",
        "default_worker_name": "dreamer_name",
        "dreamer_worker_name": "dreamer_name",
        "nataili_cache_home": "cache_home",
        "models_folder_parent": "cache_home",
        "image_models_to_load": "models_to_load",
        "allow_inpainting": "allow_painting",
        "CIVIT_API_TOKEN": "civitai_api_token",
        "number_of_dynamic_models_to_load": "number_of_dynamic_models",
        "max_dynamic_models_to_download": "max_models_to_download",
    }
)

_MEASURED = "no longer needed: memory is measured, and vram_to_leave_free bounds it"
_REFRESHED = "no longer needed: lists are asked for every hour, how models are used every day"
_CPU_JUDGE = "no longer needed: pictures are judged on the CPU, and the device is for jobs"
_NO_TEXT = "not served: this worker makes pictures, not text"
_NO_ALCHEMY = "not served yet: alchemy jobs"
_ONE_BATCH = "no longer needed: one batch at a time per device is faster, all else overlaps with it"
_LIMITS = "replaced by preload_timeout, inference_step_timeout and process_timeout"
_STICKY = "no longer needed: a model stays in memory for as long as it fits"
_ONE_MODEL_COPY = "no longer needed: model files are read where they are"

# Keys of older workers that do nothing here, each with the reason the owner is told.
RETIRED: Mapping[str, str] = MappingProxyType(
    {
        "purge_loras_on_download": "no longer needed: max_lora_cache_size bounds what is kept",
        "max_threads": _ONE_BATCH,
        "threads": _ONE_BATCH,
        "post_process_job_overlap": _ONE_BATCH,
        "safety_on_gpu": _CPU_JUDGE,
        "model_database_refresh_frequency": _REFRESHED,
        "top_n_refresh_frequency": _REFRESHED,
        "extra_stable_diffusion_models_folders": "replaced by custom_models: name each file",
        "low_vram_mode": _MEASURED,
        "enable_model_cache": _MEASURED,
        "disable_voodoo": _MEASURED,
        "high_memory_mode": _MEASURED,
        "very_high_memory_mode": _MEASURED,
        "unload_models_from_vram_often": _MEASURED,
        "cycle_process_on_model_change": _MEASURED,
        "high_performance_mode": _LIMITS,
        "moderate_performance_mode": _LIMITS,
        "very_fast_disk_mode": "no longer needed: one model is read at a time",
        "model_stickiness": _STICKY,
        "horde_model_stickiness": _STICKY,
        "temp_dir": _ONE_MODEL_COPY,
        "ray_temp_dir": _ONE_MODEL_COPY,
        "disable_disk_cache": _ONE_MODEL_COPY,
        "post_process_timeout": "replaced by process_timeout: it is a part of the job",
        "download_timeout": "no longer needed: a job's own time limit bounds its downloads",
        "minutes_allowed_without_jobs": "no longer needed: an hour without jobs is no fault",
        "suppress_speed_warnings": "no longer needed: there are no speed warnings to hide",
        "disable_terminal_ui": "no longer needed: plain lines are shown where there is no terminal",
        "limited_console_messages": "no longer needed: the console shows one line per event",
        "always_download": "no longer needed: the worker never asks a question",
        "exit_on_unhandled_faults": "no longer needed: a broken engine is started anew",
        "remove_maintenance_on_init": "no longer done; to end it: worker --maintenance off",
        "capture_kudos_training_data": "no longer done: nothing about jobs is collected",
        "kudos_training_data_file": "no longer done: nothing about jobs is collected",
        "scribe_name": _NO_TEXT,
        "kai_url": _NO_TEXT,
        "max_length": _NO_TEXT,
        "max_context_length": _NO_TEXT,
        "branded_model": _NO_TEXT,
        "openai_api": _NO_TEXT,
        "backend_engine": _NO_TEXT,
        "alchemist_name": _NO_ALCHEMY,
        "forms": _NO_ALCHEMY,
    }
)

# Values that templates put where the owner's own belong.
PLACEHOLDERS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "api_key": ("your-api-key", "0000000000", 0),
        "dreamer_name": ("your-worker-name", "An Awesome Dreamer", "An Awesome AI Horde Worker"),
    }
)


def is_word(text: str) -> bool:
    """Whether it is, or was meant as, a word that stands for models."""
    return bool(_LIKE_A_WORD.fullmatch(text.strip()))


_LIKE_A_WORD = re.compile(r"(top|bottom)( \S+)?( models?)?|all( .*)?", re.IGNORECASE)
