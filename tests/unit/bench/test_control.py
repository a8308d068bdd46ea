"""The report on the control loop: counted here, timed elsewhere."""

from vla.bench.control import ChannelReport, measure_channel, phase_facts, table

PHASE = {
    **dict.fromkeys(("ticks", "misses", "holds", "limit_violations", "answers"), 7),
    **dict.fromkeys(("p50_ms", "p99_ms", "p999_ms", "max_ms", "answer_p50_ms"), 0.25),
    **dict.fromkeys(("work_p50_ms", "work_p99_ms", "work_max_ms"), 0.5),
    "scheduling": "fifo 80",
    "rate_hz": 100.0,
    "memory": {"control": {"start_mb": 50.0, "end_mb": 51.0, "growth_mb_per_min": 0.125}},
}
CHANNEL = ChannelReport(
    payload_bytes=64, messages=9, lost=0, p50_us=10, p99_us=20, max_us=30, publish_us=4, read_us=5
)


def test_the_channels_latency_is_measured_between_two_processes():
    report = measure_channel(payload_bytes=512, messages=50)
    assert report.messages == 50
    assert 0 <= report.lost < 50
    assert 0 < report.p50_us <= report.p99_us <= report.max_us
    assert report.publish_us > 0
    assert report.read_us > 0


def test_the_table_says_what_a_missed_deadline_is_and_has_a_row_for_each_drive():
    text = table({"realtime": phase_facts(PHASE), "ordinary": phase_facts(PHASE)}, [CHANNEL])
    assert "missed 10 ms" in text
    assert sum(line.startswith("fifo 80") for line in text.splitlines()) == 6
    assert "64 bytes" in text
    assert "0.125" in text
