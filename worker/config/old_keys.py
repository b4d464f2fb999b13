"""Keys of other workers and of earlier versions, and what is said about them.

docs/configuration.md holds the same rows for people; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

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
        "extended_controlnet": "allow_extended_controlnet",
        "CIVIT_API_TOKEN": "civitai_api_token",
        "number_of_dynamic_models_to_load": "number_of_dynamic_models",
        "max_dynamic_models_to_download": "max_models_to_download",
        "kai_url": "text_backend",
        "openai_api": "text_api",
    }
)

_MEASURED = "no longer needed: memory is measured, and vram_to_leave_free bounds it"
_REFRESHED = "no longer needed: lists are asked for every hour, how models are used every day"
_CPU_JUDGE = "no longer needed: pictures are checked on the CPU, and the card is for jobs"
_ONE_BATCH = "no longer needed: one batch at a time is faster, and all else runs beside it"
_LIMITS = "no longer needed: how fast this machine is is learnt; process_timeout bounds a job"
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
        "backend_engine": "no longer needed: the text server is asked what it is",
    }
)

# Values that templates put where the owner's own belong.
PLACEHOLDERS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "api_key": ("your-api-key", "0000000000", 0),
        "dreamer_name": ("your-worker-name", "An Awesome Dreamer", "An Awesome AI Horde Worker"),
    }
)

# Names of kinds of work that templates of other workers have for everybody: they count as left out.
UNCHOSEN: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "alchemist_name": ("An Awesome Alchemist",),
        "scribe_name": ("An Awesome Scribe",),
    }
)

_TOLD_ONE_BY_ONE = 3  # notes on keys that do nothing


def in_short(notes: Sequence[str]) -> tuple[str, ...]:
    """The notes of a configuration: what changes something first, then keys that do nothing, on one
    line where there are many."""
    retired = [note for note in notes if note.partition(":")[0] in RETIRED]
    others = tuple(note for note in notes if note not in retired)
    if len(retired) <= _TOLD_ONE_BY_ONE:
        return (*others, *retired)
    keys = ", ".join(note.partition(":")[0] for note in retired)
    return (*others, f"{len(retired)} old keys do nothing here (docs/configuration.md): {keys}")
