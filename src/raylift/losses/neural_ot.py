"""The paper's objective: neural optimal transport."""

from __future__ import annotations

from torch import Tensor

from raylift.config.recipe import PaperObjectiveConfig
from raylift.losses.objective import GeneratorOutput, Objective, Setting
from raylift.losses.transport import feature_divergence, voxel_divergence
from raylift.networks.features import FeatureExtractor
from raylift.networks.potential import POTENTIALS


class PaperObjective(Objective):
    """Equations 3 and 4 of the paper, which by default do not use which X-rays belong to which volume.

    Without f, the divergence is that of the volumes themselves; λ_d = 0 leaves out d.

    Args:
        config: the recipe's block `objective`.
        setting: further data of the training run.
    """

    config_class = PaperObjectiveConfig
    config: PaperObjectiveConfig

    def __init__(self, config: PaperObjectiveConfig, setting: Setting) -> None:
        super().__init__(config, setting)
        self.f = FeatureExtractor(seed=setting.seed, bias=config.features_bias) if config.features else None
        self.d = POTENTIALS[config.potential](setting.grid.shape[0]) if config.lambda_d else None
        self.g_updates, self.d_updates = config.g_updates, int(self.d is not None)

    def generator_terms(self, output: GeneratorOutput) -> dict[str, Tensor]:
        """Return the terms of L_g = λ_c · S(f(g(V_cat)), f(V)) − λ_d · d(g(V_cat)), equation 3."""
        config, fake, real = self.config, output.fake, output.real
        if self.f is not None:
            divergence = feature_divergence(
                self.f, fake, real, config.blur, config.layers, config.debias, config.pairing
            )
        else:
            divergence = voxel_divergence(fake, real, config.blur, config.debias)
        terms = {"sinkhorn": config.lambda_c * divergence}
        if self.d is not None:
            terms["potential"] = -config.lambda_d * self.d(fake).mean()
        return terms

    def discriminator_loss(self, output: GeneratorOutput) -> Tensor | None:
        """Return L_d = d(g(V_cat)) − d(V), equation 4, times its weight; None without d."""
        if self.d is None:
            return None
        loss: Tensor = self.config.potential_loss * (self.d(output.fake).mean() - self.d(output.real).mean())
        return loss
