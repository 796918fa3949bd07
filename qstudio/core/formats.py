"""Number formats: what values a site's codes can stand for. Words, widths and bounds; the arithmetic is elsewhere.

Written in a recipe and on the command line as "int" or, with a variant, "int:torch".
"""

from __future__ import annotations

from dataclasses import dataclass

from qstudio.core.errors import UserError
from qstudio.core.registry import Registry
from qstudio.core.scheme import Scheme, format_bits

FAMILIES = ("affine", "levels", "float")
"""How a format is computed: `qstudio.core.affine`, `qstudio.core.levels`, `qstudio.core.float_formats`."""


@dataclass(frozen=True)
class Variant:
    """One way to read a format, written after a colon."""

    id: str
    title: str
    summary: str


@dataclass(frozen=True)
class Format:
    """A number format, and what a person is told about it."""

    id: str
    title: str
    summary: str
    """What it is and when to use it, in one or two sentences."""
    formula: str
    source: str
    family: str
    """One of FAMILIES."""
    bits: tuple[int, int]
    """Narrowest and widest code; equal where the width is fixed."""
    target: str
    """Import string of what makes its encoding."""
    kinds: tuple[str, ...] = ("weight",)
    """Which sites can take it: "weight", "activation"."""
    stored: str = "values"
    """What an export holds: "integers", "float8", "float16", or "values" (float32 values on the format's grid)."""
    parameters: int = 1
    """Numbers stored beside the codes for each row that shares them; -1 = one for each code."""
    uses_range: bool = True
    """Whether the calibration's range matters."""
    uses_symmetry: bool = False
    variants: tuple[Variant, ...] = ()
    """The first one is the default and is written without a colon."""

    def width(self, bits: int) -> int:
        """Return the width the format takes when `bits` are asked for: the nearest it has."""
        return min(max(bits, self.bits[0]), self.bits[1])

    def takes(self, kind: str) -> bool:
        """Return whether sites of a kind can have this format."""
        return kind in self.kinds


BOTH = ("weight", "activation")

FLOAT8_SCALES = (
    Variant("", "scaled", "a float32 scale"),
    Variant("mx", "MX", "a power-of-two scale per block (OCP Microscaling; use group:32)"),
)

FORMATS: Registry[Format] = Registry(
    "qstudio.formats",
    Format,
    Format(
        "int",
        "Integer (affine)",
        "Even steps with a scale and a zero point. The format that integer hardware runs.",
        "q = clamp(round(x / s) + z, qmin, qmax), x^ = s (q - z)",
        "Jacob et al., 2018; ONNX QuantizeLinear",
        "affine",
        (1, 16),
        "qstudio.core.affine:encode",
        BOTH,
        "integers",
        uses_symmetry=True,
        variants=(
            Variant(
                "", "narrow", "symmetric codes -(2^(b-1)-1) .. 2^(b-1)-1: s = a / (2^(b-1)-1), +a and -a are exact"
            ),
            Variant("full", "full", "symmetric codes -2^(b-1) .. 2^(b-1)-1: s = 2a / (2^b - 1), +a saturates"),
            Variant("onnxruntime", "onnxruntime", "onnxruntime's quantize_static: narrow from 5 bits up, full below"),
            Variant(
                "torch", "torch", "torch.ao's observers: full codes, s = a / ((qmax - qmin) / 2) in float32, s >= 2^-23"
            ),
            Variant("aimet", "AIMET", "full codes, s = max(rmax / (2^(b-1)-1), -rmin / 2^(b-1)): no value saturates"),
        ),
    ),
    Format(
        "bfp",
        "Block floating point",
        "Integers that share one power of two per block (granularity group:N): multiplying needs no scale.",
        "s = 2^(floor(log2 max|x|) - b + 2), x^ = s clamp(round(x / s), -(2^(b-1)-1), 2^(b-1)-1)",
        "Wilkinson, 1963; Drumond et al., 2018; OCP Microscaling v1.0, 2023",
        "affine",
        (2, 16),
        "qstudio.core.affine:encode",
        BOTH,
        "integers",
    ),
    Format(
        "binary",
        "Binary",
        "One bit: the sign, times the mean magnitude. For the extreme end, with training.",
        "x^ = E|x| sign(x), sign(0) = 1",
        "Rastegari et al., XNOR-Net, 2016",
        "levels",
        (1, 1),
        "qstudio.core.levels:binary",
        uses_range=False,
    ),
    Format(
        "ternary",
        "Ternary",
        "Minus, zero, plus: small weights vanish, the rest share one magnitude.",
        "D = 0.7 E|x|, alpha = E(|x| : |x| > D), x^ = alpha sign(x) [|x| > D]",
        "Li et al., Ternary Weight Networks, 2016",
        "levels",
        (2, 2),
        "qstudio.core.levels:ternary",
        uses_range=False,
    ),
    Format(
        "log",
        "Logarithmic",
        "Steps that grow with the value: fine around zero, coarse at the ends. Suits weights with long tails.",
        "k = sign(x) round(alpha ln(1 + |x|)), alpha = (2^(b-1)-1) / ln(1 + max|x|)",
        "Miyashita et al., 2016",
        "levels",
        (2, 8),
        "qstudio.core.levels:log",
        BOTH,
    ),
    Format(
        "log2",
        "Logarithmic, base 2",
        "As logarithmic with alpha a power of two, so that shifts decode it: part of the codes may stay unused.",
        "k = sign(x) round(alpha log2(|x| + 1)), alpha = 2^floor(log2((2^(b-1)-1) / log2(max|x| + 1)))",
        "Miyashita et al., 2016",
        "levels",
        (2, 8),
        "qstudio.core.levels:log2",
        BOTH,
    ),
    Format(
        "pow2",
        "Power of two",
        "Zero and signed powers of two: a multiplication becomes a shift.",
        "x^ = sign(x) 2^round(log2|x|), exponents clipped to the 2^(b-1)-1 largest; below half the smallest: 0",
        "Zhou et al., Incremental Network Quantization, 2017",
        "levels",
        (2, 8),
        "qstudio.core.levels:pow2",
        BOTH,
    ),
    Format(
        "apot",
        "Additive powers of two",
        "Sums of two powers of two: nearly as cheap as shifts, without their gap between the large levels.",
        "x^ = mean + scale sign (p1 + p2) / max(p1 + p2), scale = max|x - mean| in the range; b-1 bits of magnitude",
        "Li et al., Additive Powers-of-Two Quantization, 2020",
        "levels",
        (3, 5),
        "qstudio.core.levels:apot",
        parameters=2,
    ),
    Format(
        "quadratic",
        "Quadratic",
        "Steps that shrink toward the ends: the large values are kept best, the small ones worst.",
        "k = sign(x) round(beta |x|^2), beta = (2^(b-1)-1) / max|x|^2",
        "power-law companding; gamma = delta = 0 of beta (|x| - gamma)^2 + delta",
        "levels",
        (2, 8),
        "qstudio.core.levels:quadratic",
    ),
    Format(
        "statistical",
        "Mean and deviation",
        "Even steps around the mean that reach three deviations: the range follows the bulk, not the extremes.",
        "k = clamp(round((x - mean) / (3 std) n), -n, n), x^ = mean + 3 std k / n, n = 2^(b-1)-1",
        "clip((x - mean) / std L + b), as in statistics-aware weight binning (Choi et al., 2018)",
        "levels",
        (2, 8),
        "qstudio.core.levels:statistical",
        parameters=2,
        uses_range=False,
    ),
    Format(
        "kmeans",
        "Codebook (k-means)",
        "Levels placed by the values themselves, where Lloyd's iteration finds the least squared error.",
        "x^ = the nearest of 2^b means",
        "Lloyd, 1982; Han et al., Deep Compression, 2016",
        "levels",
        (1, 8),
        "qstudio.core.levels:kmeans",
        parameters=-1,
        uses_range=False,
    ),
    Format(
        "nf4",
        "NormalFloat 4",
        "Sixteen levels at the quantiles of a normal distribution. The weight format of QLoRA; use group:64.",
        "x^ = max|x| times the nearest of 16 levels",
        "Dettmers et al., QLoRA, 2023",
        "levels",
        (4, 4),
        "qstudio.core.levels:nf4",
    ),
    Format(
        "fp16",
        "Float16",
        "Half precision: 5 bits of exponent, 10 of mantissa, up to 65504.",
        "x rounded to nearest even",
        "IEEE 754-2008",
        "float",
        (16, 16),
        "qstudio.core.float_formats:FP16",
        BOTH,
        "float16",
        parameters=0,
        uses_range=False,
    ),
    Format(
        "bf16",
        "BFloat16",
        "Float32's exponent with 7 bits of mantissa: no overflow, about 2.4 decimal digits.",
        "x rounded to nearest even",
        "Kalamkar et al., 2019",
        "float",
        (16, 16),
        "qstudio.core.float_formats:BF16",
        BOTH,
        "float16",
        parameters=0,
        uses_range=False,
    ),
    Format(
        "fp8_e4m3",
        "Float8 E4M3",
        "4 bits of exponent, 3 of mantissa, up to 448 (no infinities). For weights and activations.",
        "x^ = s fp8(x / s), s = max|x| / 448",
        "Micikevicius et al., 2022; ONNX float8e4m3fn",
        "float",
        (8, 8),
        "qstudio.core.float_formats:E4M3",
        BOTH,
        "float8",
        variants=FLOAT8_SCALES,
    ),
    Format(
        "fp8_e5m2",
        "Float8 E5M2",
        "5 bits of exponent, 2 of mantissa, up to 57344. More range, less precision than E4M3.",
        "x^ = s fp8(x / s), s = max|x| / 57344",
        "Micikevicius et al., 2022; ONNX float8e5m2",
        "float",
        (8, 8),
        "qstudio.core.float_formats:E5M2",
        BOTH,
        "float8",
        variants=FLOAT8_SCALES,
    ),
)
"""Formats by id: built-ins, and the plug-ins of the entry-point group "qstudio.formats"."""


def check_format(text: str, kind: str = "weight") -> str:
    """Return a format in canonical form ("INT" -> "int", "int:narrow" -> "int").

    Raises:
        UserError: There is no such format or variant, or sites of this kind cannot have it.
    """
    name, _, variant = text.strip().lower().partition(":")
    found = FORMATS.get(name)
    if found is None or not found.takes(kind):
        fitting = ", ".join(i for i, f in FORMATS.items() if f.takes(kind))
        what = f"{kind}s cannot have it" if found else FORMATS.why_missing(name) or "there is no such format"
        raise UserError(f"'{text}': {what}", "format", f"Choose one of {fitting}")
    if not variant:
        return name
    for item in found.variants:
        if variant in (item.id, item.title.lower()):
            return f"{name}:{item.id}" if item.id else name
    known = ", ".join(f"{name}:{v.id}" for v in found.variants if v.id)
    raise UserError(f"{name} has no variant '{variant}'", "format", f"Write {name}" + (f" or {known}" if known else ""))


def format_of(text: str) -> tuple[Format, str]:
    """Return the format and the variant's id ("" for the first one) of a text in canonical form."""
    name, _, variant = text.partition(":")
    return FORMATS[name], variant


def title_of(text: str) -> str:
    """Return a format's title with its variant: "Integer (affine), torch"."""
    found, variant = format_of(text)
    return found.title + next((f", {v.title}" for v in found.variants if v.id and v.id == variant), "")


def scheme_text(scheme: Scheme) -> str:
    """Return a scheme in words: "int8 symmetric channel minmax", "uint8 asymmetric tensor mse", "nf4 channel minmax".

    A convention follows the width ("int8:torch"); "+1% float" are outliers that are kept; "dynamic" stands where a
    calibration would; what is not rounded is "float".
    """
    if scheme.is_float:
        return "float"
    number_format, variant = format_of(scheme.format)
    words = []
    if number_format.id == "int":
        signed = scheme.symmetric or scheme.kind == "weight"
        words.append(f"{'int' if signed else 'uint'}{format_bits(scheme.bits)}{':' + variant if variant else ''}")
        words.append("symmetric" if scheme.symmetric else "asymmetric")
    elif number_format.bits[0] == number_format.bits[1]:
        words.append(scheme.format)
    else:
        words.append(f"{scheme.format}/{format_bits(scheme.bits)}")
    words.append(str(scheme.granularity))
    if scheme.dynamic and number_format.family == "affine":
        words.append("dynamic")
    elif number_format.uses_range:
        words.append(scheme.calibration)
    if scheme.outliers:
        words.append(f"+{scheme.outliers:g}% float")
    return " ".join(words)
