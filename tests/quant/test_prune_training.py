"""Training of pruned networks: zeros stay zero, steps follow their schedule, a killed training goes on, words."""

from dataclasses import replace

import pytest
from qat_cases import same
from quant_cases import small_cnn

from qstudio.core.errors import UserError
from qstudio.core.recipe import Recipe
from qstudio.core.training import Training
from qstudio.data.load import load_dataset
from qstudio.quant.ptq import PtqOptions
from qstudio.quant.qat import run as training_run
from qstudio.quant.qat.run import run_qat

SHORT = Training(epochs=3, samples=200, pruning_steps=2, feature_weight=0.1, distill=0.5)


def pruned(text, training=SHORT, folder="", bits=4, **chosen):
    recipe = Recipe().with_default(pruning=text, weight_bits=bits, activation_bits=8)
    options = PtqOptions(calibration_samples=64, eval_samples=100, measure_latency=False, threads=1)
    data = load_dataset("digits")
    return run_qat(small_cnn(), data, recipe, training, options, checkpoints=folder, **chosen)


def stop_after(epoch):
    """Return a function that ends a training when it is told of an epoch, as a kill would."""

    def told(point):
        if point.epoch == epoch:
            raise KeyboardInterrupt

    return told


@pytest.mark.parametrize("text", ["magnitude:60", "taylor:60:global"])
def test_weights_are_pruned_in_steps_and_stay_zero_and_a_killed_training_goes_on(tmp_path, text, monkeypatch):
    shares = []
    masks = training_run.GradualPruning.masks

    def counted(self, step, values, report=None):
        found = masks(self, step, values, report)
        zero = {name: float((mask == 0).sum()) for name, mask in found.items()}
        shares.append((step, sum(zero.values()) / sum(mask.numel() for mask in found.values())))
        for name, before in self.start.items():
            assert not bool((found[name] > before).any()), "what was zero stays zero"
        return found

    monkeypatch.setattr(training_run.GradualPruning, "masks", counted)
    whole = pruned(text)
    assert shares == [(2, pytest.approx(0.6, abs=0.01))]
    assert whole.best_epoch >= 2, "before all steps are done no epoch is the best"
    sparsity = [layer.sparsity for layer in whole.run.layers if layer.sparsity is not None]
    if text.startswith("magnitude"):
        assert sparsity == pytest.approx([60.0] * 4, abs=1.5)
    else:
        assert min(sparsity) < 55 < 65 < max(sparsity), "layers compete"
    assert whole.run.size_bytes.sparse < whole.run.size_bytes.quantized
    assert whole.run.parity.agreement == 100.0
    with pytest.raises(KeyboardInterrupt):
        pruned(text, folder=tmp_path / "kept", on_point=stop_after(2))
    same(pruned(text, folder=tmp_path / "kept", resume=True), whole)


def test_removed_filters_are_trained_around(tmp_path):
    result = pruned("l1_filter:25", replace(SHORT, pruning_steps=1))
    assert result.run.size_bytes.sparse is None
    assert {layer.name: layer.sparsity for layer in result.run.layers if layer.sparsity}["conv1"] == 25.0
    assert result.curve[-1].held_out_loss < result.curve[0].held_out_loss
    # What is compared with is the network before pruning: it is the teacher, and float in the result.
    whole = pruned("none", replace(SHORT, epochs=1, pruning_steps=1))
    assert result.run.float == whole.run.float
    assert result.curve[0].float_top1 == whole.curve[0].float_top1


def test_float_weights_can_be_pruned_and_trained_too():
    result = pruned("magnitude:50", replace(SHORT, epochs=2, pruning_steps=1, feature_weight=0.0), bits="float")
    assert [layer.sparsity for layer in result.run.layers if layer.sparsity is not None] == [50.0] * 4
    assert result.run.size_bytes.sparse < 0.7 * result.run.size_bytes.quantized


def test_levels_without_zero_are_refused_in_words():
    with pytest.raises(UserError, match="the levels of dorefa leave out zero"):
        pruned("magnitude:50", replace(SHORT, method="dorefa"))
    with pytest.raises(UserError, match="pruning steps"):
        Training(epochs=2, pruning_steps=3)
