"""What stages cost on a real board."""

from pathlib import Path

from thumbnet.compile.artifact import Artifact
from thumbnet.runtime_tests.session import LayerCost, Measurement
from thumbnet.tools.stage_costs import StageCost, print_stages, profile_stages


def test_stages_of_a_real_board_are_times(capsys):
    stages = [
        StageCost("a", ("a",), "portable", 1000, "seconds on the board", 1e-4, 0.0),
        StageCost("b", ("b0", "b"), "dsp", 2000, "seconds on the board", 3e-4, 0.0),
        StageCost("reshape", (), "TVM", None, "seconds on the board", 1e-5, 0.0),
    ]
    print_stages("Times", stages, Measurement("seconds on the board", (6e-4, 4e-4, 5e-4)))
    out = capsys.readouterr().out
    assert "microseconds on the board" in out
    assert out.index("300.0") < out.index("100.0") < out.index("10.0 ") < out.index("410.0") < out.index("500.0")
    assert "60.0%" in out
    assert stages[0].as_json()["seconds"] == 1e-4


def test_stages_of_a_real_board_are_the_middle_of_several_inferences():
    artifact = Artifact(Path(), {"kind": "c", "layers": [{"name": "a", "layers": ["a0", "a"], "kernel": "dsp"}]})

    class Session:
        costs = iter((9e-4, 3e-4, 5e-4))

        def profile(self, image):
            return [LayerCost("a", "seconds on the board", next(self.costs), 1e-6)]

    [stage] = profile_stages(artifact, Session(), None, repeat=3)
    assert (stage.layers, stage.cost, stage.samples, stage.error) == (("a0", "a"), 5e-4, (9e-4, 3e-4, 5e-4), 1e-6)
    assert stage.as_json()["samples"] == [9e-4, 3e-4, 5e-4]
