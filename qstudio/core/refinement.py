"""Refinements: what can be done to a network so that rounding it costs less. Words and bounds; the work is elsewhere.

Written in a recipe and on the command line as "adaround" or, with parameters that differ from their defaults,
"adaround:iterations=2000:batch=64".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qstudio.core.errors import UserError
from qstudio.core.registry import Registry

STAGES = ("import", "network", "values")
"""When a refinement runs: while the model is read; before calibration, on the network; after calibration, on weights,
biases and scales."""


@dataclass(frozen=True)
class Parameter:
    """A number that can be set for a refinement."""

    name: str
    title: str
    help: str
    """One sentence: what it does, with its unit."""
    default: float
    low: float
    high: float
    whole: bool = False
    """Whether only whole numbers fit; with bounds 0 and 1 it is a switch."""


@dataclass(frozen=True)
class Refinement:
    """How to prepare a network for rounding, and what a person is told about it."""

    id: str
    title: str
    summary: str
    """What it does and when to use it."""
    formula: str
    source: str
    """Where the method comes from."""
    target: str
    """Import string of the function: (network, task) -> network in stage "network", (network, task, refined) ->
    refined in stage "values"; empty for what the import does."""
    stage: str
    parameters: tuple[Parameter, ...] = ()
    rounds: bool = False
    """Whether it chooses the codes of weights: at most one of these runs."""

    def settings(self, text: str) -> dict[str, float]:
        """Return all parameters by name, with what `text` ("id:name=value:...") sets.

        Raises:
            UserError: A parameter does not exist or its value is out of bounds.
        """
        chosen = {p.name: p.default for p in self.parameters}
        known = {p.name: p for p in self.parameters}
        for part in text.split(":")[1:]:
            name, _, value = (piece.strip() for piece in part.partition("="))
            if name not in known:
                fix = f"Choose from {', '.join(known)}" if known else f"Write {self.id}"
                raise UserError(f"{self.id} has no parameter '{name}'", "refinements", fix)
            chosen[name] = _number(value, known[name], self.id)
        return chosen

    def canonical(self, text: str) -> str:
        """Return `text` with its parameters in order and those at their default left out."""
        settings = self.settings(text)
        changed = [f"{p.name}={settings[p.name]:.10g}" for p in self.parameters if settings[p.name] != p.default]
        return ":".join((self.id, *changed))


def _number(text: str, parameter: Parameter, refinement: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not parameter.low <= value <= parameter.high or (parameter.whole and value != int(value)):
        kind = "a whole number" if parameter.whole else "a number"
        fix = f"Give {kind} from {parameter.low:g} to {parameter.high:g}"
        raise UserError(f"'{text}' does not fit {refinement}'s {parameter.name}", "refinements", fix)
    return value


_ITERATIONS = "Steps of the optimiser for each {}; time grows with it."
_SEARCH = Parameter(
    "search",
    "Search weight scales",
    "1 starts each weight scale at the share of the calibrated one, 0.4 to 1, that makes sum((W - Q(W))^2) least; 0 at"
    " the calibrated one.",
    1,
    0,
    1,
    True,
)
_BATCH = Parameter("batch", "Batch", "Calibration samples in a step.", 32, 1, 512, True)

REFINEMENTS: Registry[Refinement] = Registry(
    "qstudio.refinements",
    Refinement,
    Refinement(
        "fold",
        "Fold BatchNorm",
        "Takes each BatchNormalization into the layer before it. Always right for inference.",
        "W' = W gamma / sqrt(var + eps), b' = (b - mean) gamma / sqrt(var + eps) + beta",
        "Jacob et al., 2018, section 3.2",
        "",
        "import",
    ),
    Refinement(
        "cle",
        "Cross-layer equalization",
        "Moves scale between the channels of neighbouring layers, so that one step fits all channels. For weights with"
        " one scale per tensor, above all in depthwise networks; the float network stays the same.",
        "s_i = sqrt(r1_i r2_i) / r2_i; W1_i / s_i, b1_i / s_i, W2_i s_i; then c_i = max(0, mean_i - 3 sigma_i) is taken"
        " from b1 and added to b2 through W2",
        "Nagel et al., Data-Free Quantization, 2019",
        "qstudio.quant.refine.cle:cle",
        "network",
        (
            Parameter(
                "clip_share",
                "Clip share, %",
                "A Clip (ReLU6) becomes a Relu if at most this percentage of its calibration values exceeds the bound.",
                0.0,
                0.0,
                100.0,
            ),
            Parameter(
                "absorb", "Absorb high biases", "1 moves high biases into the next layer, 0 does not.", 1, 0, 1, True
            ),
        ),
    ),
    Refinement(
        "smoothquant",
        "SmoothQuant",
        "Moves the outlier channels of a LayerNorm's output into the weights of the products that read it. For"
        " transformers with 8-bit activations; the float network stays the same.",
        "s_j = max|X_j|^alpha / max|W_j|^(1 - alpha); X_j / s_j, W_j s_j",
        "Xiao et al., SmoothQuant, 2023",
        "qstudio.quant.refine.smoothquant:smoothquant",
        "network",
        (Parameter("alpha", "Alpha", "How much of the range goes to the weights: 0 none, 1 all.", 0.5, 0.0, 1.0),),
    ),
    Refinement(
        "gptq",
        "GPTQ",
        "Rounds a layer's inputs one after the other and lets the rest make up for each error. Fast; for linear layers"
        " and convolutions at 2 to 4 bits.",
        "H = 2 X X^T + damping mean(diag H) I; each column's error / [H^-1]_kk is spread over the columns to come",
        "Frantar et al., GPTQ, 2023",
        "qstudio.quant.refine.gptq:gptq",
        "values",
        (
            Parameter("damping", "Damping", "Share of the Hessian's mean diagonal added to it.", 0.01, 1e-6, 1.0),
            Parameter("act_order", "Activation order", "1 starts with the inputs that matter most.", 0, 0, 1, True),
        ),
        rounds=True,
    ),
    Refinement(
        "adaround",
        "AdaRound",
        "Learns for each weight whether it is rounded up or down, layer by layer. For weights of 2 to 5 bits with"
        " activations of 8.",
        "W~ = s clamp(floor(W / s) + h(V)), h = clip(1.2 sigmoid(V) - 0.1, 0, 1); min ||f(W x) - f(W~ x^)||^2 +"
        " lambda sum(1 - |2h - 1|^beta)",
        "Nagel et al., Up or Down?, 2020",
        "qstudio.quant.refine.adaround:adaround",
        "values",
        (
            Parameter("iterations", "Iterations", _ITERATIONS.format("layer"), 500, 1, 100000, True),
            _BATCH,
            Parameter("rate", "Learning rate", "Of V, with Adam.", 0.2, 1e-5, 1.0),
            Parameter("regularizer", "Regulariser", "Weight lambda of the rounding term.", 100.0, 0.0, 1000.0),
            _SEARCH,
        ),
        rounds=True,
    ),
    Refinement(
        "brecq",
        "Block reconstruction",
        "Learns rounding, activation steps, weight scales and biases block by block, with half of the activations left"
        " unrounded at random in each step. For activations below 8 bits.",
        "min ||B(W, x) - B(W~, x^)||^2 + lambda sum(1 - |2h - 1|^beta) over blocks B; steps by the gradient of LSQ",
        "Li et al., BRECQ, 2021; Wei et al., QDrop, 2022; Esser et al., LSQ, 2020",
        "qstudio.quant.refine.brecq:brecq",
        "values",
        (
            Parameter("iterations", "Iterations", _ITERATIONS.format("block"), 500, 1, 100000, True),
            _BATCH,
            Parameter("rate", "Learning rate", "Of V, with Adam.", 0.2, 1e-5, 1.0),
            Parameter("regularizer", "Regulariser", "Weight lambda of the rounding term.", 100.0, 0.0, 1000.0),
            _SEARCH,
            Parameter("drop", "QDrop", "1 leaves half of the activations unrounded in each step.", 1, 0, 1, True),
            Parameter("steps", "Learn activation steps", "1 learns the activations' steps.", 1, 0, 1, True),
            Parameter("scales", "Learn weight scales", "1 learns a factor for each weight scale.", 1, 0, 1, True),
            Parameter("biases", "Learn biases", "1 learns the biases too.", 1, 0, 1, True),
        ),
        rounds=True,
    ),
    Refinement(
        "bias_correction",
        "Bias correction",
        "Takes the mean shift that rounding causes out of each layer's output. Cheap; goes with every method, and with"
        " MSE ranges it is needed.",
        "b - (E[W^ x^] - E[W x]) for each output channel, layer by layer on quantized inputs",
        "Nagel et al., Data-Free Quantization, 2019, section 4.2",
        "qstudio.quant.refine.bias_correction:bias_correction",
        "values",
    ),
)
"""Refinements by id, in the order they run: built-ins, then the plug-ins of the entry-point group."""


def check_refinements(names: Iterable[object]) -> tuple[str, ...]:
    """Return refinements in canonical form and in the order they run.

    All others work on folded weights, so naming one of them puts "fold" in front.

    Raises:
        UserError: One does not exist, is named twice, has a parameter that does not fit, or two choose codes.
    """
    chosen: dict[str, str] = {}
    for text in map(str, names):
        name = text.partition(":")[0].strip()
        refinement = REFINEMENTS.get(name)
        if refinement is None:
            why = REFINEMENTS.why_missing(name)
            what = f"there is no refinement '{name}' in this version" + (f" ({why})" if why else "")
            raise UserError(what, "refinements", f"Choose from {', '.join(REFINEMENTS)}, or none")
        if name in chosen:
            raise UserError("one is named twice", "refinements", "Name each once")
        chosen[name] = refinement.canonical(text)
    if chosen:
        chosen.setdefault("fold", "fold")
    rounding = [name for name in chosen if REFINEMENTS[name].rounds]
    if len(rounding) > 1:
        what = f"{rounding[0]} and {rounding[1]} both choose how weights are rounded"
        raise UserError(what, "refinements", "Choose one of them")
    return tuple(chosen[name] for name in REFINEMENTS if name in chosen)
