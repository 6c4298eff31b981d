"""Every linear operator and lift: ⟨A x, y⟩ = ⟨x, Aᵀ y⟩."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from raylift.drr import ProjectionOperator
from raylift.geometry import PRESETS, Geometry, View, VolumeGrid
from raylift.lifting import LIFTS, build_lift

VIEWS = (View(0.0), View(90.0), View(37.0, mirrored=True), View(200.0, turn=(3.0, -2.0, 5.0), shift=(4.0, 0.0, -7.0)))
GRID = VolumeGrid.box((10.0, -20.0, 5.0), (12, 14, 16), 20.0)
CUBE = VolumeGrid.cube((0, 0, 0), 320.0, 16)
NOT_LINEAR = ("noise-fixed", "noise-fresh")

Linear = Callable[[Tensor], Tensor]


def operator(geometry: Geometry) -> tuple[Linear, Linear, tuple[int, ...], tuple[int, ...]]:
    A = ProjectionOperator(GRID, geometry.with_pixels(24).cameras(VIEWS, GRID.centre))
    return A, A.T, A.domain_shape, A.range_shape


def back_projection(geometry: Geometry) -> tuple[Linear, Linear, tuple[int, ...], tuple[int, ...]]:
    A, back, domain, image = operator(geometry)
    return back, A, image, domain


def lift(name: str) -> tuple[Linear, Linear, tuple[int, ...], tuple[int, ...]]:
    views = VIEWS[:2] if name == "image" else VIEWS
    made = build_lift(name, CUBE, PRESETS["chest-stand"].with_pixels(24).cameras(views), (0, 0, 0))
    images = (len(views), 24, 24)

    def adjoint(y: Tensor) -> Tensor:
        x = torch.zeros(len(y), *images, requires_grad=True)
        (gradient,) = torch.autograd.grad(made(x), x, y)
        return gradient

    return made, adjoint, images, tuple(made(torch.zeros(1, *images)).shape[1:])


OPERATORS = {
    **{f"projection, {name}": lambda unit=unit: operator(unit) for name, unit in PRESETS.items()},
    "back-projection": lambda: back_projection(PRESETS["chest-stand"]),
    **{f"lift, {name}": lambda name=name: lift(name) for name in LIFTS.own if name not in NOT_LINEAR},
}


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint(name: str) -> None:
    A, adjoint, domain, image = OPERATORS[name]()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *domain, generator=generator).requires_grad_()
    y = torch.randn(2, *image, generator=generator)
    ahead, back = A(x), adjoint(y)
    scale = float(ahead.norm() * y.norm())
    assert scale > 0
    assert float((ahead.double() * y).sum().detach()) == pytest.approx(
        float((x.double() * back).sum().detach()), abs=1e-5 * scale
    )
    # Autograd's gradient of ⟨A x, y⟩ is Aᵀ y.
    (gradient,) = torch.autograd.grad((ahead * y).sum(), x)
    torch.testing.assert_close(gradient, back, rtol=1e-3, atol=1e-5 * float(back.abs().max()))
    # It is linear.
    x, ahead = x.detach(), ahead.detach()
    expected = 2 * ahead - 0.5 * ahead.flip(0)
    torch.testing.assert_close(A(2 * x - 0.5 * x.flip(0)), expected, rtol=1e-3, atol=1e-4 * float(ahead.abs().max()))


def test_the_shapes_are_those_it_says() -> None:
    A = ProjectionOperator(GRID, PRESETS["chest-stand"].with_pixels(24).cameras(VIEWS, GRID.centre))
    assert A(torch.zeros(3, *A.domain_shape)).shape == (3, *A.range_shape)
    assert A.T(torch.zeros(3, *A.range_shape)).shape == (3, *A.domain_shape)
    with pytest.raises(ValueError, match="does not fit"):
        A(torch.zeros(1, 2, 3, 4))
    with pytest.raises(ValueError, match="are not"):
        A.T(torch.zeros(1, 2, 3, 4))
