"""What a diagnosis tries: spared layers, and repairs of one side of a network. Recipes only. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

from qstudio.core.findings.evidence import Evidence, Site, is_depthwise
from qstudio.core.model_info import LayerInfo
from qstudio.core.recipe import Recipe
from qstudio.core.refinement import check_refinements
from qstudio.core.scheme import FLOAT_BITS


@dataclass(frozen=True)
class Repair:
    """A change of the recipe that may help."""

    title: str
    recipe: Recipe
    cost: int = 0
    """0: none; 1: a few layers grow; 2: all do. What costs less is preferred."""

    def on(self, before: Recipe, recipe: Recipe) -> Recipe:
        """Return `recipe` with what this repair changes in `before` changed too."""
        found = replace(recipe, refinements=_joined(recipe.refinements, self.recipe.refinements))
        for layer, values in self.recipe.overrides:
            own = dict(next((known for name, known in before.overrides if name == layer), ()))
            changed = {name: value for name, value in values if name not in own or own[name] != value}
            found = found.with_layers((layer,), **changed)
        return found


def _joined(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    names = {text.partition(":")[0] for text in first}
    return check_refinements([*first, *(text for text in second if text.partition(":")[0] not in names)])


SIDES = ("weight", "activation")


def only(evidence: Evidence, side: str) -> Recipe:
    """Return the recipe with only one side quantized."""
    other = "activation" if side == "weight" else "weight"
    return evidence.recipe.with_layers([layer.name for layer in evidence.model.layers], **{f"{other}_bits": FLOAT_BITS})


def quantized(evidence: Evidence, side: str) -> tuple[LayerInfo, ...]:
    """Return the layers that quantize one side."""
    return tuple(layer for layer in evidence.model.layers if _site(evidence, layer, side) is not None)


def _site(evidence: Evidence, layer: LayerInfo, side: str) -> Site | None:
    return evidence.weight(layer) if side == "weight" else evidence.activation(layer)


def spared(recipe: Recipe, layers: tuple[LayerInfo, ...], sides: tuple[str, ...]) -> Recipe:
    """Return the recipe with the sides of some layers left in float."""
    return recipe.with_layers([layer.name for layer in layers], **{f"{side}_bits": FLOAT_BITS for side in sides})


def kinds(layers: tuple[LayerInfo, ...]) -> dict[str, tuple[LayerInfo, ...]]:
    """Return layers by kind, in words; at least two of them, else nothing stands against something."""
    found: dict[str, list[LayerInfo]] = {}
    for layer in layers:
        if is_depthwise(layer):
            kind = "depthwise layers"
        elif layer.op_type in ("Conv", "ConvTranspose"):
            kind = "convolutions other than depthwise" if any(map(is_depthwise, layers)) else "convolutions"
        elif layer.op_type in ("Gemm", "MatMul"):
            kind = "products"
        else:
            kind = "other layers"
        found.setdefault(kind, []).append(layer)
    return {kind: tuple(some) for kind, some in found.items()} if len(found) > 1 else {}


def noisiest(
    evidence: Evidence, layers: tuple[LayerInfo, ...], sides: tuple[str, ...], count: int
) -> tuple[LayerInfo, ...]:
    """Return the layers with the lowest estimated SQNR on the given sides, the lowest first."""
    rated = []
    for layer in layers:
        known = [_site(evidence, layer, side) for side in sides]
        errors = [site.error() for site in known if site is not None]
        levels = [error.sqnr_db for error in errors if error is not None and isfinite(error.sqnr_db)]
        if levels:
            rated.append((min(levels), layer))
    rated.sort(key=lambda item: item[0])
    return tuple(layer for _, layer in rated[:count])


def repairs(evidence: Evidence, sides: tuple[str, ...], worst: tuple[LayerInfo, ...]) -> tuple[Repair, ...]:
    """Return what can be tried on the sides at fault, what costs nothing first.

    Args:
        evidence: Of the model under the recipe.
        sides: At fault.
        worst: Layers that hurt most: those that get bits back.
    """
    recipe, found = evidence.recipe, []
    if "weight" in sides:
        weights = [(layer, evidence.weight(layer)) for layer in evidence.model.layers]
        known = [(layer, site) for layer, site in weights if site is not None and site.scheme.is_affine]
        coarse = [layer.name for layer, site in known if site.scheme.granularity.kind == "tensor"]
        if coarse:
            found.append(
                Repair("one weight scale per channel", recipe.with_layers(coarse, weight_granularity="channel"))
            )
            if not evidence.refines("cle"):
                found.append(Repair("cross-layer equalization", _switched_on(recipe, "cle")))
        kept = [layer.name for layer, site in known if site.scheme.bits < 8 and site.scheme.calibration != "mse"]
        if kept:
            found.append(Repair("MSE ranges of the weights", recipe.with_layers(kept, weight_calibration="mse")))
    if "activation" in sides:
        outputs = [(layer, evidence.activation(layer)) for layer in evidence.model.layers]
        seen = [(layer, site) for layer, site in outputs if site is not None and site.scheme.is_affine]
        wide = [layer.name for layer, site in seen if site.scheme.calibration != "mse" and not site.info.is_output]
        if wide:
            found.append(
                Repair("MSE ranges of the activations", recipe.with_layers(wide, activation_calibration="mse"))
            )
        signed = [layer.name for layer, site in seen if site.scheme.symmetric]
        if signed:
            found.append(Repair("asymmetric activations", recipe.with_layers(signed, activation_symmetric=False)))
        if any(layer.op_type == "LayerNormalization" for layer, _ in seen) and not evidence.refines("smoothquant"):
            found.append(Repair("SmoothQuant", _switched_on(recipe, "smoothquant")))
    count = len(worst)
    if worst:
        title = f"8 bits for {worst[0].name if count == 1 else f'the {count} worst layers'}"
        found.append(Repair(title, _at_eight(evidence, sides, worst), cost=1))
    words = "weights and activations" if len(sides) > 1 else f"{sides[0]}s"
    everywhere = Repair(f"8 bits for all {words}", _at_eight(evidence, sides, evidence.model.layers), cost=2)
    if all(everywhere.recipe != each.recipe for each in found):
        found.append(everywhere)
    return tuple(each for each in found if each.recipe != recipe)


def _at_eight(evidence: Evidence, sides: tuple[str, ...], layers: tuple[LayerInfo, ...]) -> Recipe:
    """Return the recipe with 8 bits for those of the layers that have less."""
    recipe = evidence.recipe
    for side in sides:
        few = [
            layer.name
            for layer in layers
            if (site := _site(evidence, layer, side)) is not None and site.scheme.bits < 8
        ]
        if few:
            recipe = recipe.with_layers(few, **{f"{side}_bits": 8})
    return recipe


def _switched_on(recipe: Recipe, name: str) -> Recipe:
    return replace(recipe, refinements=check_refinements([*recipe.refinements, name]))
