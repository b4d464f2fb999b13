from __future__ import annotations

from worker.config.keys import EXPECTS, BridgeConfig
from worker.config.live import LIVE, Needs, needs


def config_of(**more: object) -> BridgeConfig:
    return BridgeConfig.model_validate({"api_key": "a-key", "dreamer_name": "a", **more})


def test_each_live_key_is_a_key():
    assert set(LIVE) <= set(EXPECTS)
    assert (needs("nsfw"), needs("queue_size")) == (Needs.next_job, Needs.restart)


def test_a_running_worker_takes_over_what_needs_no_restart():
    config = config_of(max_power=8, queue_size=1, on_battery=True)
    config.take_over(config_of(max_power=32, queue_size=3))
    assert (config.now.max_power, config.now.on_battery) == (32, False)
    assert (config.now.queue_size, config.max_power) == (1, 8)
    config.take_over(config_of())
    assert config.now.model_dump() == config_of().model_dump()
