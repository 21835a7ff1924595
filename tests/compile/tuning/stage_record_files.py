"""Records of stages, and folders of them."""

from thumbnet.compile.tuning.stage_key import describe_stage, kernels_digest, key_of
from thumbnet.compile.tuning.stage_record import StageRecord
from thumbnet.compile.tuning.stage_records import opened_stage_records


def make_record(number=0, **changes):
    fields = {
        "key": f"{number:024x}",
        "kernels": kernels_digest(),
        "stage": {"kernels": "dsp", "rows": number},
        "layers": ["features.0"],
        "predicted": 100.0,
        "kind": "predicted cycles",
        "right": True,
        "samples": [150.0 + number],
        "board": "mps2_an386",
        "core": "cortex-m4",
        "device": "qemu_mps2_an386",
        "emulated": True,
        "clock_hz": 25_000_000,
        "compiler": "gcc 12",
        "thumbnet": "0.1.0",
        "date": "2026-01-01T00:00:00+00:00",
    }
    return StageRecord(**(fields | changes))


def record_of(stage, cost, **changes):
    """Return the record of a stage of a network, as a Cortex-M4's predicted cycles."""
    said = {"layers": [layer.name for layer in stage.layers], "predicted": float(stage.cost), "samples": [float(cost)]}
    return make_record(key=key_of(stage), stage=describe_stage(stage), **(said | changes))


def fill(folder, count=5):
    records = [make_record(number) for number in range(count)]
    with opened_stage_records(folder) as recorder:
        for record in records:
            recorder.add(record)
    return records
