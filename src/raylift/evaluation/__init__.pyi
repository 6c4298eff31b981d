from .calibration import calibrate as calibrate
from .clinical import clinical_measures as clinical_measures
from .comparison import compare as compare
from .evaluation import evaluate as evaluate
from .intervals import mean_interval as mean_interval
from .intervals import paired_difference as paired_difference
from .metrics import mae as mae
from .metrics import mse as mse
from .metrics import psnr as psnr
from .metrics import ssim as ssim
from .protocols import PROTOCOLS as PROTOCOLS
from .report import CaseResult as CaseResult
from .report import write_report as write_report
from .saliency import explain as explain
from .scores import score as score

__all__ = [
    "PROTOCOLS",
    "CaseResult",
    "calibrate",
    "clinical_measures",
    "compare",
    "evaluate",
    "explain",
    "mae",
    "mean_interval",
    "mse",
    "paired_difference",
    "psnr",
    "score",
    "ssim",
    "write_report",
]
