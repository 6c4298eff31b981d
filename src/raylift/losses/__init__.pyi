from .adversarial import WassersteinObjective as WassersteinObjective
from .adversarial import X2CTObjective as X2CTObjective
from .neural_ot import PaperObjective as PaperObjective
from .objective import GeneratorOutput as GeneratorOutput
from .objective import Objective as Objective
from .objective import Setting as Setting
from .paired import PairedObjective as PairedObjective
from .registry import build_objective as build_objective
from .ssim import structural_similarity as structural_similarity

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
