"""The tables behind bridgeData.yaml: every key that was ever known, and what is said about it.

docs/configuration.md holds the same rows for people; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

PROJECT_URL = "https://github.com/dreamer-horde/dreamer"

# The server grants features and the full reward by name and version: "AI Horde Worker" >= 24.
DEFAULT_BRIDGE_AGENT = f"AI Horde Worker:24.1.0:{PROJECT_URL}"


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
            'a list of at most 300 model names of 3 to 255 characters (no groups like "top 2")',
            "The models that are offered, as the horde spells them.",
        ),
        "models_to_skip": Key(
            "a list of model names",
            "Models that are never offered, whatever the other keys say.",
        ),
        "custom_models": Key(
            "a list of {name, baseline, filepath}; baseline is stable diffusion 1, "
            "stable diffusion 2 or stable_diffusion_xl",
            "Checkpoint files of your own; the horde asks for the customizer role.",
        ),
        "max_power": Key(
            "a whole number from 1 to 512",
            "Largest picture: 64 x 64 x 8 x max_power pixels. 8 is 512x512, 32 is 1024x1024.",
        ),
        "max_batch": Key(
            "a whole number from 1 to 20",
            "Most pictures of one request to take at once: about max_batch x max_pixels / 3.5 "
            "pixels in all, as the horde counts, and at least one picture.",
        ),
        "queue_size": Key(
            "a whole number from 0 to 4",
            "Jobs that wait, prepared, while the device is busy.",
        ),
        "nsfw": Key(_YES_NO, "false: requests marked as not safe for work are not taken."),
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
        "stats_output_frequency": Key(
            "a whole number of seconds from 0 to 86400",
            "Seconds between two lines of statistics; 0 for none.",
        ),
        "horde_url": Key(
            "an address such as https://aihorde.net (http:// only for this machine or a private "
            "network address)",
            "The horde that is served.",
        ),
        "bridge_agent": Key(
            "name:version:url, at most 1000 characters",
            "How the worker introduces itself; the horde grants features by name and version.",
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
    }
)

_MEASURED = "no longer needed: memory is measured, and vram_to_leave_free bounds it"
_NAMED = "replaced by models_to_load: name the models"
_NO_LORA = "not needed yet: jobs with LoRAs are not served, and the offer says so"
_NO_JUDGE = "not done yet: pictures are not checked here; nsfw: false takes no such requests"
_NO_TEXT = "not served: this worker makes pictures, not text"
_NO_ALCHEMY = "not served yet: alchemy jobs"
_ONE_BATCH = "no longer needed: one batch at a time per device is faster, all else overlaps with it"
_LIMITS = "replaced by preload_timeout, inference_step_timeout and process_timeout"
_STICKY = "no longer needed: a model stays in memory for as long as it fits"
_ONE_MODEL_COPY = "no longer needed: model files are read where they are"

# Keys of older workers that do nothing here, each with the reason the owner is told.
RETIRED: Mapping[str, str] = MappingProxyType(
    {
        "allow_img2img": "not served yet: image to image jobs, and the offer says so",
        "allow_painting": "not served yet: inpainting jobs, and the offer says so",
        "allow_inpainting": "not served yet: inpainting jobs, and the offer says so",
        "allow_post_processing": "not served yet: upscalers and face fixers, the offer says so",
        "allow_controlnet": "not served yet: ControlNet jobs, and the offer says so",
        "allow_sdxl_controlnet": "not served yet: ControlNet jobs, and the offer says so",
        "allow_lora": "not served yet: jobs with LoRAs, and the offer says so",
        "max_lora_cache_size": _NO_LORA,
        "civitai_api_token": _NO_LORA,
        "CIVIT_API_TOKEN": _NO_LORA,
        "purge_loras_on_download": _NO_LORA,
        "max_threads": _ONE_BATCH,
        "threads": _ONE_BATCH,
        "post_process_job_overlap": _ONE_BATCH,
        "censor_nsfw": _NO_JUDGE,
        "safety_on_gpu": _NO_JUDGE,
        "censorlist": "replaced by blacklist: requests with such words are not taken at all",
        "dynamic_models": _NAMED,
        "number_of_dynamic_models": _NAMED,
        "number_of_dynamic_models_to_load": _NAMED,
        "max_models_to_download": _NAMED,
        "max_dynamic_models_to_download": _NAMED,
        "model_database_refresh_frequency": _NAMED,
        "top_n_refresh_frequency": _NAMED,
        "load_large_models": _NAMED,
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
        "post_process_timeout": "not needed yet: post-processing is not served",
        "download_timeout": "no longer needed: a job's own time limit bounds its downloads",
        "minutes_allowed_without_jobs": "no longer needed: an hour without jobs is no fault",
        "suppress_speed_warnings": "no longer needed: there are no speed warnings to hide",
        "disable_terminal_ui": "no longer needed: plain lines are shown where there is no terminal",
        "limited_console_messages": "no longer needed: the console shows one line per event",
        "always_download": "no longer needed: the worker never asks a question",
        "exit_on_unhandled_faults": "no longer needed: a broken engine is started anew",
        "remove_maintenance_on_init": "no longer done: end maintenance at the horde's website",
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

# Spellings seen in configurations and references → the horde's own name of the model family.
BASELINES: Mapping[str, str] = MappingProxyType(
    {
        "stable diffusion 1": "stable diffusion 1",
        "stable_diffusion_1": "stable diffusion 1",
        "stable diffusion 2": "stable diffusion 2",
        "stable_diffusion_2": "stable diffusion 2",
        "stable diffusion xl": "stable_diffusion_xl",
        "stable_diffusion_xl": "stable_diffusion_xl",
    }
)
