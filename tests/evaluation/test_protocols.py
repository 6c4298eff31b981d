import json
import math
import subprocess
import sys

import numpy as np
import pytest
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

from raylift.errors import WrongUsage
from raylift.evaluation.protocols import PROTOCOLS, find_protocol
from raylift.evaluation.scores import score
from raylift.geometry import VolumeGrid
from raylift.images.hounsfield import hu_to_normalised, normalised_to_hu
from raylift.images.volume import Volume
from raylift.io.volumes import write_volume
from repository import ROOT

SCORER = ROOT.parent / "shared" / "tools" / "score.py"


@pytest.fixture
def offset():
    truth = np.full((8, 9, 10), 0.4)
    return truth + 0.1, truth


def test_hu_of_a_constant_offset(offset):
    result = score(*offset, "hu")
    assert list(result) == ["ssim", "psnr", "mse", "mae", "mae_hu"]
    assert result["mse"] == pytest.approx(0.01)
    assert result["mae"] == pytest.approx(0.1)
    assert result["psnr"] == pytest.approx(20)
    assert result["mae_hu"] == pytest.approx(200)


def test_paper_minmax_scales_by_the_truths_own_range():
    truth = np.full((8, 9, 10), 0.4)
    truth[0, 0, 0], truth[0, 0, 1] = 0.1, 0.6
    prediction = truth + 0.1
    plain, scaled = score(prediction, truth, "paper"), score(prediction, truth, "paper-minmax")
    # Half the window is now all of it; where 0.6 was, the prediction is clipped.
    assert scaled["mse"] == pytest.approx(0.2**2 * 719 / 720)
    assert scaled["psnr"] == pytest.approx(10 * math.log10(4095**2 / (2000**2 * scaled["mse"])))
    assert scaled["psnr"] < plain["psnr"]


@pytest.mark.parametrize(("protocol", "scale", "above"), [("paper", 2000, 6.2245), ("x2ct", 2500, 4.2863)])
def test_psnr_of_published_protocols_is_above_ours(offset, protocol, scale, above):
    psnr = score(*offset, protocol)["psnr"]
    assert psnr == pytest.approx(20 + 20 * math.log10(4095 / scale))
    assert psnr == pytest.approx(20 + above, abs=1e-4)


def test_the_papers_psnr_is_18_13_in_ours():
    # Its table's 24.35 dB, and the mean squared error they stand for.
    truth = np.full((8, 8, 8), 0.5)
    result = {name: score(truth + math.sqrt(10**-1.8125), truth, name) for name in ("hu", "paper")}
    assert result["paper"]["psnr"] == pytest.approx(24.35, abs=0.01)
    assert result["hu"]["psnr"] == pytest.approx(18.13, abs=0.01)


def test_x2ct_counts_identical_slices_as_100_decibels():
    truth = np.full((8, 8, 8), 0.4)
    prediction = truth.copy()
    prediction[0] += 0.1
    # Along z one slice is off by 250 of 4095, seven are identical; along y and x each has 1/8 of that MSE.
    off = 20 * math.log10(4095 / 250)
    expected = ((off + 7 * 100) / 8 + 2 * (off + 10 * math.log10(8))) / 3
    assert score(prediction, truth, "x2ct")["psnr"] == pytest.approx(expected)


def test_x2ct_ssim_has_the_peak_for_its_range():
    a, b, c1 = 0.4 * 2500, 0.6 * 2500, (0.01 * 4095) ** 2
    result = score(np.full((8, 8, 8), 0.6), np.full((8, 8, 8), 0.4), "x2ct")
    assert result["ssim"] == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_identical_volumes_are_perfect_and_finite(protocol, smooth_pair):
    result = score(smooth_pair[0], smooth_pair[0], protocol)
    assert result["ssim"] == pytest.approx(1)
    assert result["mse"] == result["mae"] == 0
    assert result["psnr"] in (100, 120)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_values_are_clipped_to_the_window(protocol):
    truth = np.ones((8, 8, 8))
    assert score(truth + 3, truth, protocol)["mae"] == 0


def test_float32_is_scored_as_float64(smooth_pair):
    truth, prediction = smooth_pair
    single = score(prediction.astype(np.float32), truth.astype(np.float32))
    assert single == pytest.approx(score(prediction, truth), abs=1e-5)


@pytest.mark.skipif(not SCORER.exists(), reason="the independent scorer is not beside the repository")
def test_hu_agrees_with_an_independent_scorer(smooth_pair, tmp_path):
    # The true scan is the finer one, as scans are. Whole HU, as files hold, and some outside the window.
    truth, prediction = (np.rint(normalised_to_hu(1.2 * array - 0.1)) for array in smooth_pair)
    fine = Volume(truth, VolumeGrid.box((10.0, -20.0, 30.0), truth.shape, 2.0))
    coarse = Volume(prediction[:10, :10, :10], VolumeGrid.box((11.0, -21.0, 30.0), (10, 10, 10), 4.0))
    files = [
        str(write_volume(volume, tmp_path / f"{name}.mha"))
        for name, volume in (("truth", fine), ("prediction", coarse))
    ]
    run = subprocess.run([sys.executable, SCORER, *files, "--json"], capture_output=True, text=True, check=True)
    theirs = json.loads(run.stdout)
    ours = score(hu_to_normalised(coarse.array), hu_to_normalised(fine.resample(coarse.grid).array), "hu")
    for metric, value in ours.items():
        assert value == pytest.approx(theirs[metric], rel=1e-5, abs=1e-4), metric


def test_hu_by_scikit_image(smooth_pair):
    truth, prediction = smooth_pair
    result = score(prediction, truth, "hu")
    assert result["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, prediction, data_range=1.0))
    assert result["mse"] == pytest.approx(mean_squared_error(truth, prediction))


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.zeros((8, 8, 8)), np.zeros((8, 8, 9)), "differ in shape"),
        (np.zeros((8, 8, 6)), np.zeros((8, 8, 6)), "at least 7"),
        (np.zeros((8, 8)), np.zeros((8, 8)), "at least 7"),
        (np.full((8, 8, 8), np.nan), np.zeros((8, 8, 8)), "prediction holds NaN"),
    ],
)
def test_what_cannot_be_scored_is_refused(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        score(prediction, truth)


def test_unknown_protocol_names_the_nearest():
    with pytest.raises(WrongUsage, match="the nearest is 'paper'"):
        find_protocol("papre")
    with pytest.raises(WrongUsage, match="hu, paper, paper-minmax, x2ct"):
        find_protocol("zzz")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_describe_themselves_in_a_line(name):
    protocol = PROTOCOLS[name]
    assert protocol.name == name
    assert protocol.description
    assert "\n" not in protocol.description
