"""What training minimises: the paper's neural optimal transport, the paired objective, and the competitors'."""

from raylift.losses.adversarial import WassersteinObjective, X2CTObjective
from raylift.losses.neural_ot import PaperObjective
from raylift.losses.objective import GeneratorOutput, Objective, Setting
from raylift.losses.paired import PairedObjective
from raylift.losses.registry import build_objective
from raylift.losses.ssim import structural_similarity

__all__ = [
    "GeneratorOutput",
    "Objective",
    "PairedObjective",
    "PaperObjective",
    "Setting",
    "WassersteinObjective",
    "X2CTObjective",
    "build_objective",
    "structural_similarity",
]
