"""The paper's objective: neural optimal transport."""

from __future__ import annotations

from torch import Tensor, nn

from raylift.config.recipe import PaperObjectivePart
from raylift.losses.objective import Translation
from raylift.losses.transport import feature_divergence, voxel_divergence
from raylift.networks.features import FeatureExtractor
from raylift.networks.potential import POTENTIALS


class PaperObjective(nn.Module):
    """Equations 3 and 4 of the paper; as published, pairs are not used as pairs.

    Without f the divergence is that of the volumes themselves; λ_d = 0 leaves out d.

    Args:
        settings: λ_c, λ_d, the weight of L_d, the blur, what f and d are.
        seed: of the frozen extractor f.
        voxels: edge of the volumes.
    """

    def __init__(self, settings: PaperObjectivePart, seed: int, voxels: int) -> None:
        super().__init__()
        self.settings = settings
        self.f = FeatureExtractor(seed=seed, bias=settings.features_bias) if settings.features else None
        self.d = POTENTIALS[settings.potential](voxels) if settings.lambda_d else None
        self.d_shares = False
        self.g_updates, self.d_updates = settings.g_updates, int(self.d is not None)

    def g_terms(self, made: Translation) -> dict[str, Tensor]:
        """L_g = λ_c · S(f(g(V_cat)), f(V)) − λ_d · d(g(V_cat)), equation 3."""
        settings, fake, real = self.settings, made.fake, made.real
        if self.f is not None:
            divergence = feature_divergence(
                self.f, fake, real, settings.blur, settings.layers, settings.debias, settings.pairing
            )
        else:
            divergence = voxel_divergence(fake, real, settings.blur, settings.debias)
        terms = {"sinkhorn": settings.lambda_c * divergence}
        if self.d is not None:
            terms["potential"] = -settings.lambda_d * self.d(fake).mean()
        return terms

    def d_loss(self, made: Translation) -> Tensor:
        """L_d = d(g(V_cat)) − d(V), equation 4, with the authors' weight. Raises TypeError where there is no d."""
        if self.d is None:
            raise TypeError("λ_d is 0: there is no potential")
        return self.settings.potential_loss * (self.d(made.fake).mean() - self.d(made.real).mean())
