"""The paper's objective: neural optimal transport."""

from __future__ import annotations

from torch import Tensor, nn

from raylift.networks.features import FeatureExtractor
from raylift.networks.potential import Potential
from raylift.objectives.translation import Translation
from raylift.recipe import PaperObjectivePart
from raylift.transport import feature_divergence, voxel_divergence


class PaperObjective(nn.Module):
    """Equations 3 and 4 of the paper, as published; pairs are not used as pairs.

    Without f the divergence is that of the volumes themselves; λ_d = 0 leaves out d.

    Args:
        settings: λ_c, λ_d, the weight of L_d, the blur, and whether there is an f.
        seed: of the frozen extractor f.
    """

    def __init__(self, settings: PaperObjectivePart, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.f = FeatureExtractor(seed=seed) if settings.features else None
        self.d = Potential() if settings.potential else None
        self.d_shares = False
        self.g_updates, self.d_updates = settings.g_updates, int(self.d is not None)

    def g_terms(self, made: Translation) -> dict[str, Tensor]:
        """L_g = λ_c · S(f(g(V_cat)), f(V)) − λ_d · d(g(V_cat)), equation 3."""
        blur = self.settings.blur
        if self.f is not None:
            divergence = feature_divergence(self.f, made.fake, made.real, blur)
        else:
            divergence = voxel_divergence(made.fake, made.real, blur)
        terms = {"sinkhorn": self.settings.sinkhorn * divergence}
        if self.d is not None:
            terms["potential"] = -self.settings.potential * self.d(made.fake).mean()
        return terms

    def d_loss(self, made: Translation) -> Tensor:
        """L_d = d(g(V_cat)) − d(V), equation 4, with the authors' weight. Raises TypeError where there is no d."""
        if self.d is None:
            raise TypeError("λ_d is 0: there is no potential")
        return self.settings.potential_loss * (self.d(made.fake).mean() - self.d(made.real).mean())
