from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pydantic_core import PydanticUndefined

from worker.config.card_keys import CardKeys
from worker.config.config import load_config
from worker.config.keys import ENTRY_EXPECTS, EXPECTS, BridgeConfig
from worker.config.old_keys import RENAMED, RETIRED, in_short
from worker.config.served_keys import CustomModel
from worker.config.values import MemoryReserve
from worker.errors import ConfigError

ROOT = Path(__file__).parents[3]
FILLED_IN = """
api_key: "abcdefghijklmnopqrstuv"
dreamer_name: "a worker"
models_to_load: ["Deliberate"]
"""
OWN_VALUES: dict[str, str] = {
    "api_key": '"another-key-of-22-char"',
    "dreamer_name": "another",
    "alchemist_name": "an alchemist",
    "forms": "[nsfw, post-process]",
    "annotation_types": "[canny]",
    "max_tiles": "4",
    "aesthetic_score": "true",
    "alchemist_only": "true\nalchemist_name: an alchemist",
    "scribe_name": "a scribe\ntext_backend: http://127.0.0.1:5001",
    "text_backend": "http://127.0.0.1:5001/api/v1/",
    "text_api": "openai",
    "text_key": "a-key",
    "text_model": "koboldcpp/mine",
    "branded_model": "true",
    "max_length": "256",
    "max_context_length": "8192",
    "text_threads": "4",
    "scribe_only": "true\nscribe_name: a scribe\ntext_backend: http://127.0.0.1:5001",
    "models_to_load": "[Dreamshaper]",
    "models_to_skip": "[Dreamshaper]",
    "load_large_models": "true",
    "dynamic_models": "true",
    "number_of_dynamic_models": "3",
    "max_models_to_download": "20",
    "custom_models": "[{name: mine, baseline: stable diffusion 1, filepath: mine.safetensors}]",
    "max_power": "32",
    "max_batch": "7",
    "queue_size": "3",
    "devices": "[{card: 1, name: left, max_power: 16, models_to_load: [Mine]}, GPU-1234-abcd]",
    "nsfw": "false",
    "censor_nsfw": "true",
    "censorlist": "[giant spider]",
    "safety": "required",
    "blacklist": "[spider]",
    "priority_usernames": '["db0#1"]',
    "require_upfront_kudos": "true",
    "allow_unsafe_ip": "false",
    "allow_img2img": "false",
    "allow_painting": "false",
    "allow_post_processing": "false",
    "allow_controlnet": "false",
    "allow_extended_controlnet": "false",
    "allow_sdxl_controlnet": "true",
    "allow_lora": "false",
    "max_lora_cache_size": "20",
    "civitai_api_token": "a-token",
    "extra_slow_worker": "true",
    "limit_max_steps": "true",
    "vram_to_leave_free": "2 GiB",
    "fast": "[fp16_accumulation]",
    "ram_to_leave_free": "2048",
    "cache_home": "/srv/horde",
    "comfyui_path": "/srv/ComfyUI",
    "preload_timeout": "90",
    "inference_step_timeout": "30",
    "process_timeout": "100",
    "stop_timeout": "90",
    "serve_hours": '["mon-fri 22:00-07:00"]',
    "pause_for": '["steam*"]',
    "others_on_card": "true",
    "user_active": "10",
    "on_battery": "true",
    "max_card_temperature": "83",
    "card_power_limit": "220",
    "notify": '["ntfys://a-topic", "mailto://me:secret@example.org"]',
    "notify_skip": "[disk]",
    "notify_no_jobs_hours": "12",
    "metrics": "127.0.0.1:7862",
    "metrics_key": "a-key",
    "stats_output_frequency": "0",
    "horde_url": "https://horde.example/api/",
    "model_reference": "https://example.org/reference/",
    "page": "http://127.0.0.1:7000",
    "page_password": "correct horse",
    "auto_update": "never",
    "show_pictures": "true",
    "bridge_agent": '"My Worker:1.0:https://example.org"',
}

Written = Callable[[str | bytes], Path]


@pytest.fixture(name="written")
def _written(tmp_path: Path) -> Written:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "bridgeData.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def problems_of(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert all("\n" not in line for line in caught.value.problems)
    return caught.value.problems


def with_setting(key: str, value: str) -> str:
    lines = [line for line in FILLED_IN.splitlines() if not line.startswith(f"{key}:")]
    return "\n".join([*lines, f"{key}: {value}"])


def test_the_template_lacks_only_what_its_owner_has_to_fill_in():
    template = ROOT / "bridgeData.template.yaml"
    assert [line.split(":")[0] for line in problems_of(template)] == ["api_key", "dreamer_name"]


def test_the_template_filled_in_changes_no_default(written: Written):
    text = (ROOT / "bridgeData.template.yaml").read_text("utf-8")
    text = text.replace("your-api-key", "abcdefghijklmnopqrstuv")
    config = load_config(written(text.replace("your-worker-name", "a worker")))
    assert config == load_config(written(FILLED_IN))


@pytest.mark.parametrize(
    "key",
    [
        *("serve_hours", "pause_for", "user_active", "on_battery", "others_on_card"),
        *("max_card_temperature", "card_power_limit", "page", "page_password", "notify", "metrics"),
    ],
)
def test_the_template_shows_what_an_owner_may_want(key: str):
    text = (ROOT / "bridgeData.template.yaml").read_text("utf-8")
    (line,) = [each for each in text.splitlines() if each.removeprefix("# ").startswith(f"{key}:")]
    shown = yaml.safe_load(line.removeprefix("# "))
    assert BridgeConfig.model_validate({"api_key": "a-key", "dreamer_name": "me", **shown})


@pytest.mark.parametrize("key", EXPECTS)
def test_every_key_has_an_effect(key: str, written: Written):
    before = load_config(written(FILLED_IN))
    extra = "models_to_load: [Dreamshaper, Deliberate]\n" if key == "models_to_skip" else ""
    text = with_setting(key, OWN_VALUES[key])
    text = text.replace('models_to_load: ["Deliberate"]', extra) if extra else text
    after = load_config(written(text))
    assert getattr(after, key) != getattr(before, key)
    assert after.notes == ()


def test_the_tables_and_the_model_name_the_same_keys():
    assert set(BridgeConfig.model_fields) - {"notes"} == set(EXPECTS)
    assert set(RENAMED.values()) <= set(EXPECTS)
    assert not set(EXPECTS) & (set(RENAMED) | set(RETIRED))


def default_text(key: str) -> str:
    default = BridgeConfig.model_fields[key].default
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, MemoryReserve):
        return f"`{default}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return {(): "`[]`", None: "not set"}.get(default, f"`{default}`")


def effect_text(key: str) -> str:
    return " ".join((BridgeConfig.model_fields[key].description or "").split())


def test_the_documentation_holds_the_tables_of_the_code():
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    rows = {line for line in text.splitlines() if line.startswith("| `")}
    honoured = {
        f"| `{key}` | {default_text(key)} | {EXPECTS[key]} | {effect_text(key)} |"
        for key in EXPECTS
    }
    renamed = {
        f"| `{old}` | replaced by `{new}`; its value is used |" for old, new in RENAMED.items()
    }
    retired = {f"| `{old}` | {reason} |" for old, reason in RETIRED.items()}
    assert rows == honoured | renamed | retired


def test_every_field_of_an_entry_says_what_it_expects():
    assert ENTRY_EXPECTS["devices"].keys() == CardKeys.model_fields.keys()
    assert ENTRY_EXPECTS["custom_models"].keys() == CustomModel.model_fields.keys()


def test_every_problem_is_named_at_once(written: Written):
    text = with_setting("max_power", "1000") + "\nnsfw: maybe\nmax_powr: 3\nqueue_size: 9\n"
    lines = problems_of(written(text))
    assert sorted(line.split(":")[0] for line in lines) == [
        "'max_powr'",
        "max_power",
        "nsfw",
        "queue_size",
    ]
    assert "max_power: 1000; expected a whole number from 1 to 512" in lines
    assert "'max_powr': unknown key; did you mean max_power?" in lines


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("api_key: 123456", "(put it in quotes)"),
        ("api_key: 0000000000", "still the template's"),
        ('api_key: "with a space"', "expected the key"),
        ("api_key: 11111111-2222-3333-4444-555555555555", "not a shared one"),
        ("dreamer_name: 123", "(put it in quotes)"),
        (f"dreamer_name: {'x' * 101}", "1 to 100 characters"),
        ("dreamer_name: my Colab", "without colab"),
        ('dreamer_name: "a \\u202e rig"', "1 to 100"),
        ('dreamer_name: "  "', "1 to 100"),
        ("custom_models: [{name: top 2, baseline: flux_1, filepath: a}]", "[0].name: 'top 2'"),
        ("custom_models: [{name: ALL SDXL, baseline: flux_1, filepath: a}]", "[0].name: 'ALL"),
        ("dynamic_models: 3", "true or false"),
        ("number_of_dynamic_models: -1", "0 to 100"),
        ("model_reference: ftp://example.org", "stable_diffusion.json"),
        ("model_reference: http://example.org", "stable_diffusion.json"),
        ("models_to_load: [sd]", "3 to 255"),
        (f"models_to_load: [{', '.join(f'model {n}' for n in range(301))}]", "at most 300"),
        ("models_to_load: []", "names no model"),
        ("models_to_skip: [Deliberate]", "names no model"),
        ("models_to_load: Deliberate", "a list"),
        ("custom_models: [{name: mine, baseline: pixart, filepath: a}]", "[0].baseline: 'pixart'"),
        (
            "custom_models: [{name: mine, baseline: stable diffusion 1}]",
            "custom_models[0].filepath: missing; expected the path of the file",
        ),
        (
            "custom_models: [{name: my, baseline: stable diffusion 1, filepath: a}]",
            "[0].name: 'my'; expected a name of 3 to 255 characters that is no group's",
        ),
        ("devices: none", "expected all, or a list of cards"),
        ("devices: [{card: 0, max_powr: 3}]", "expected card, name, max_power, max_batch, vram_"),
        ("devices: [{card: 0, vram_to_leave_free: 2 apples}]", "expected auto, a share"),
        ("devices: [{card: 0, models_to_load: [top 2]}]", "'top 2'; expected a list of names"),
        ("devices: [{max_power: 3}]", "devices[0].card: missing; expected a card's number"),
        ("max_power: '8'", "a whole number"),
        ("max_power: true", "a whole number"),
        ("max_batch: 21", "1 to 20"),
        ("nsfw: 1", "true or false"),
        (f"blacklist: [{'x' * 16}]", "1 to 15 characters"),
        (f"blacklist: [{', '.join(f'word{n}' for n in range(201))}]", "at most 200"),
        ("priority_usernames: [db0]", "db0#1"),
        ("vram_to_leave_free: 96%", "up to 95%"),
        ("fast: [fp16]", "a list of fp16_accumulation"),
        ("fast: [sage_attention, flash_attention]", "one attention at most"),
        ("ram_to_leave_free: auto", "up to 95%"),
        ("vram_to_leave_free: 2 apples", "2 GiB"),
        ("ram_to_leave_free: -5", "2 GiB"),
        ("ram_to_leave_free: true", "2 GiB"),
        ("horde_url: aihorde.net", "https://aihorde.net"),
        ("horde_url: http://aihorde.net", "http:// only"),
        ("horde_url: https://me:secret@aihorde.net", "https://aihorde.net"),
        ("horde_url: https://aihorde.net:99999", "https://aihorde.net"),
        ("bridge_agent: nonsense", "name:version:url"),
        ("scribe_name: a scribe", "text_backend: missing; expected the address of your"),
        ("scribe_only: true", "scribe_name: missing"),
        ("alchemist_name: a worker", "'a worker' is dreamer_name"),
        ("text_backend: localhost:5001", "http://127.0.0.1:5001"),
        ("text_backend: http://me:secret@host", "http://127.0.0.1:5001"),
        ("text_api: kai", "auto, kobold or openai"),
        ("max_length: 8", "16 to 4096"),
        ("page: 7861", "an address of this machine"),
        ("page: https://127.0.0.1:7861", "an address of this machine"),
        ("page: http://example.org:7861", "an address of this machine"),
        ("page: http://127.0.0.1", "an address of this machine"),
        ("page: http://127.0.0.1:7861/worker", "an address of this machine"),
        ("page: http://0.0.0.0:7861", "there is no page_password"),
        ("page_password: short", "not shown here"),
        ("cache_home: [a]", "path of a folder"),
    ],
)
def test_a_wrong_value_is_named_with_what_to_write(setting: str, part: str, written: Written):
    key, _, value = setting.partition(": ")
    (line,) = problems_of(written(with_setting(key, value)))
    assert part in line


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "empty"),
        (b"# only a comment\n", "empty"),
        (b"\x00\x01\x02", "line 1: not text"),
        (b"a: 1\nb: \xff\xfe", "line 2: not UTF-8"),
        ('{"max_power": 8}'.encode("utf-16"), "not UTF-8"),
        (b"max_power:\n\t8\n", "line 2, column 1: broken YAML: a tab"),
        (b"max_power: [8", 'line 1, column 12: broken YAML: a list that is opened with "["'),
        (b'a: "my worker\nb:\n  - x\n', "line 1, column 4: broken YAML: a quote that is opened"),
        (b'a: 1\nb: "me\nc:\n  - "x"\n', "line 2, column 4: broken YAML: a quote that is opened"),
        (b"a: 'it's mine'\n", "line 1, column 8: broken YAML: more text after the value's last"),
        (b"a: 1\nmax_power 8\nb: 1\n", "line 2, column 1: broken YAML: there is no colon"),
        (b"max_power 8\nb: 1\n", "line 1, column 1: broken YAML: there is no colon"),
        (b"a: [b, c\nd: 1\n", 'line 1, column 4: broken YAML: a list that is opened with "["'),
        (b"a: {b: c\nd: e\n", 'line 1, column 4: broken YAML: a "{" that is opened here'),
        (b"a:\n  - b\n - c\n", "line 3, column 2: broken YAML: the line is indented otherwise"),
        (b"a: 1\n  b: 2\n", "line 2, column 3: broken YAML: the line is indented otherwise"),
        (b"a: b: c\n", "line 1, column 5: broken YAML: a second colon in one line"),
        (b'a: "C:\\Users\\me"\n', "broken YAML: a backslash in double quotes; use single quotes"),
        (b"a: @mine\n", "line 1, column 4: broken YAML: a value that begins with a sign"),
        (b"a: *mine\n", 'line 1, column 4: broken YAML: a value that begins with "*"'),
        (b"- max_power", "no keys in it"),
        (b"max_power", "no keys in it"),
        (b"a: 1\n---\nb: 2\n", "line 2, column 1"),
        (b"? {a: b}\n: c", "line 1, column 3"),
        (b"max_power: 2024-13-45", "a value that YAML can't read"),
        (b"nsfw: !!bool perhaps", "a value that YAML can't read"),
        (b"[" * 1500, "too deep"),
    ],
)
def test_a_broken_file_is_one_clear_line(content: bytes, part: str, written: Written):
    (line,) = problems_of(written(content))
    assert part in line


def test_a_file_that_is_not_there_names_the_template(tmp_path: Path):
    (line,) = problems_of(tmp_path / "bridgeData.yaml")
    assert "no such file; run ./horde-bridge.sh setup" in line
    (line,) = problems_of(tmp_path)
    assert "can't be read" in line


def test_a_key_given_twice_names_its_lines(written: Written):
    (line,) = problems_of(written(FILLED_IN + "max_power: 8\nmax_power: 9\n"))
    assert line == "max_power: given 2 times, in lines 5, 6; keep one"


def test_the_api_key_is_never_shown(written: Written):
    key = "abcdefghijklmnopqrstuv"
    assert key not in repr(load_config(written(FILLED_IN)))
    (line,) = problems_of(written(with_setting("api_key", f'"{key} and a space"')))
    assert key not in line


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("https://aihorde.net", "https://aihorde.net"),
        ("https://aihorde.net/", "https://aihorde.net"),
        ("https://aihorde.net/api", "https://aihorde.net"),
        ("https://aihorde.net/api/", "https://aihorde.net"),
        ("https://aihorde.net/api/v2/", "https://aihorde.net"),
        ("https://example.org/horde/api/", "https://example.org/horde"),
        ("http://127.0.0.1:7001", "http://127.0.0.1:7001"),
        ("http://localhost:7001/api/", "http://localhost:7001"),
        ("http://[::1]:7001/", "http://[::1]:7001"),
        ("http://192.168.1.7:7001/", "http://192.168.1.7:7001"),
    ],
)
def test_every_form_of_the_horde_url_becomes_one(given: str, normal: str, written: Written):
    assert load_config(written(with_setting("horde_url", f'"{given}"'))).horde_url == normal


@pytest.mark.parametrize(
    ("given", "bytes_of_a_gib"),
    [
        ("20%", 214748364),
        ("5 %", 53687091),
        ("512 MiB", 2**29),
        ("0.25 GiB", 2**28),
        ("100 MB", 10**8),
        ("256", 2**28),
        (256, 2**28),
        ("2 gib", 2**30),
    ],
)
def test_a_reserve_is_a_share_or_a_size(given: object, bytes_of_a_gib: int):
    assert MemoryReserve.parse(given).bytes_of(2**30) == bytes_of_a_gib


@pytest.mark.parametrize(("card_gib", "mib"), [(4, 409), (6, 614), (8, 700), (24, 700)])
def test_what_a_card_leaves_free_by_itself_follows_its_size(card_gib: int, mib: int):
    reserve = MemoryReserve.parse_cards("auto")
    assert reserve == BridgeConfig.model_fields["vram_to_leave_free"].default
    assert reserve.bytes_of(card_gib << 30) >> 20 == mib


def test_old_keys_are_explained_and_not_refused(written: Written):
    text = FILLED_IN + "\n".join(f"{key}: 1" for key in RETIRED)
    assert load_config(written(text)).notes == tuple(
        f"{key}: {reason}" for key, reason in RETIRED.items()
    )


def test_an_old_name_counts_unless_the_new_one_is_there(written: Written):
    text = with_setting("worker_name", "old").replace('dreamer_name: "a worker"', "")
    config = load_config(written(text))
    assert config.dreamer_name == "old"
    assert config.notes == ("worker_name: replaced by dreamer_name; its value is used",)
    config = load_config(written(with_setting("worker_name", "old")))
    assert config.dreamer_name == "a worker"
    assert config.notes == ("worker_name: ignored: dreamer_name is set too",)


def test_the_scribe_of_an_older_worker_is_taken_over(written: Written):
    old = "scribe_name: mine\nkai_url: http://localhost:5000/\nopenai_api: true\n"
    config = load_config(written(f"{FILLED_IN}{old}max_length: 80\nbranded_model: true\n"))
    assert (config.text_backend, config.text_api) == ("http://localhost:5000", "openai")
    assert (config.max_length, config.branded_model) == (80, True)
    left_as_it_was = "scribe_name: An Awesome Scribe\nkai_url: http://localhost:5000\n"
    config = load_config(
        written(f"{FILLED_IN}{left_as_it_was}alchemist_name: An Awesome Alchemist")
    )
    assert config.scribe_name is config.alchemist_name is None, "as its template had it"


def test_a_reserve_that_older_workers_ignored_is_pointed_out(written: Written):
    (note,) = load_config(written(with_setting("vram_to_leave_free", '"80%"'))).notes
    assert "the worker gets only 20%. Set 10%" in note


def test_a_key_without_a_value_keeps_its_default(written: Written):
    assert load_config(written(with_setting("blacklist", ""))).blacklist == ()


def test_models_are_offered_once_and_without_the_skipped_ones(written: Written):
    text = with_setting("models_to_load", "[Deliberate, Dreamshaper, Deliberate]")
    text += "\nmodels_to_skip: [Dreamshaper]\ncustom_models:\n"
    text += "  - {name: mine, baseline: stable_diffusion_1, filepath: ~/mine.safetensors}\n"
    config = load_config(written(text))
    assert config.models == ("Deliberate", "mine")
    assert config.custom_models[0].baseline == "stable diffusion 1"
    assert config.custom_models[0].filepath == Path.home() / "mine.safetensors"


def test_max_power_is_the_hordes_formula(written: Written):
    assert load_config(written(with_setting("max_power", "32"))).max_pixels == 1024 * 1024


def test_the_models_folder_is_found_from_the_home_folder(written: Written):
    home = Path("/home/horde")
    for given, folder in (
        (".", "/home/horde/models"),
        ("./models/", "/home/horde/models"),
        ("/srv/horde", "/srv/horde/models"),
    ):
        config = load_config(written(with_setting("cache_home", given)))
        assert config.models_folder(home) == Path(folder)


@pytest.mark.parametrize("more", ["", "dynamic_models: true", "number_of_dynamic_models: 2"])
def test_without_names_only_the_queues_may_choose(more: str, written: Written):
    (line,) = problems_of(written(with_setting("models_to_load", "[]\n" + more)))
    assert "names no model" in line
    dynamic = "[]\ndynamic_models: true\nnumber_of_dynamic_models_to_load: 2"
    config = load_config(written(with_setting("models_to_load", dynamic)))
    assert (config.serves_dynamically, config.number_of_dynamic_models) == (True, 2)


def test_many_old_keys_that_do_nothing_are_one_line_after_what_matters(written: Written):
    keys = ("disable_terminal_ui", "exit_on_unhandled_faults", "high_memory_mode", "safety_on_gpu")
    text = with_setting("vram_to_leave_free", '"80%"') + "".join(f"\n{key}: true" for key in keys)
    reserve, old = in_short(load_config(written(text)).notes)
    assert reserve.startswith("vram_to_leave_free: 80%")
    assert old.startswith("4 old keys do nothing here")
    assert all(key in old for key in keys)
