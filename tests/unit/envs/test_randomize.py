import numpy as np
import pytest

from envs.randomize import START_POSITION_M, STRENGTHS, Looks, draw_start_pose
from envs.scene import Scene


def looks_of(scene: Scene) -> np.ndarray:
    model = scene.model
    return np.concatenate(
        [
            model.light_dir.ravel(), model.light_diffuse.ravel(), np.array(model.vis.headlight.ambient),
            model.cam_pos.ravel(), model.cam_quat.ravel(),
            model.mat_rgba[model.geom_matid[model.geom("table").id]],
        ]
    )  # fmt: skip


def test_strength_none_leaves_the_nominal_looks_even_after_hard_draws():
    scene = Scene()
    looks = Looks(scene)
    looks.draw(STRENGTHS["none"], np.random.default_rng(0))
    nominal = looks_of(scene)
    for seed in range(5):
        looks.draw(STRENGTHS["hard"], np.random.default_rng(seed))
        assert not np.allclose(looks_of(scene), nominal)
    looks.draw(STRENGTHS["none"], np.random.default_rng(9))
    np.testing.assert_allclose(looks_of(scene), nominal, atol=1e-7)


def test_hard_varies_more_than_train():
    scene = Scene()
    looks = Looks(scene)
    spread = {}
    for name in ("none", "train", "hard"):
        draws = []
        for seed in range(60):
            looks.draw(STRENGTHS[name], np.random.default_rng(seed))
            draws.append(looks_of(scene))
        spread[name] = np.std(draws, axis=0).sum()
    assert spread["none"] == pytest.approx(0.0, abs=1e-6)
    assert 0.0 < spread["train"] < spread["hard"]


def test_the_start_pose_stays_within_its_strength():
    for name, strength in STRENGTHS.items():
        rng = np.random.default_rng(0)
        shifts = np.array(
            [draw_start_pose(strength, rng)[0] - START_POSITION_M for _ in range(200)]
        )
        assert (np.abs(shifts).max(axis=0) <= np.array(strength.start_shift_m) + 1e-12).all(), name
