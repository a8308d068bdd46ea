import mujoco
import numpy as np
import pytest

from envs.objects import COLORS, OBJECT_MASS_KG, SHAPES, ObjectSpec, Shape
from envs.scene import Scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def place(scene: Scene, *shapes: Shape) -> None:
    scene.clear()
    colors = list(COLORS)
    for number, shape in enumerate(shapes):
        scene.add_object(
            ObjectSpec(shape=shape, color=colors[number]),
            np.array([0.5, 0.15 * number - 0.15]),
            0.3,
        )
    scene.settle()


@pytest.mark.parametrize("shape", list(Shape))
def test_a_slot_that_takes_a_shape_equals_one_compiled_with_it(scene, shape):
    place(scene, shape)
    geometry = SHAPES[shape]
    size = " ".join(map(str, geometry.size_m))
    compiled = mujoco.MjModel.from_xml_string(
        f'<mujoco><worldbody><body><freejoint/><geom type="{geometry.geom_type}" size="{size}" '
        f'mass="{OBJECT_MASS_KG}"/></body></worldbody></mujoco>'
    )
    geom, body = scene.object_geom(0), int(scene.model.geom_bodyid[scene.object_geom(0)])
    for name in ("geom_type", "geom_size", "geom_rbound", "geom_aabb"):
        np.testing.assert_allclose(getattr(scene.model, name)[geom], getattr(compiled, name)[0])
    for name in ("body_mass", "body_inertia", "body_iquat"):
        np.testing.assert_allclose(getattr(scene.model, name)[body], getattr(compiled, name)[1])


def test_objects_lie_still_where_they_were_put(scene):
    place(scene, Shape.CUBE, Shape.CYLINDER, Shape.BLOCK)
    before = [scene.object_position(slot) for slot in range(3)]
    mujoco.mj_step(scene.model, scene.data, nstep=400)
    for slot in range(3):
        np.testing.assert_allclose(scene.object_position(slot), before[slot], atol=1e-3)
        assert scene.object_yaw(slot) == pytest.approx(0.3, abs=0.02)
        assert scene.object_speed(slot) < 1e-2


def test_empty_slots_and_unused_fixtures_touch_nothing_and_are_not_drawn(scene):
    place(scene, Shape.CUBE)
    mujoco.mj_step(scene.model, scene.data, nstep=200)
    touching = {int(geom) for geom in scene.data.contact.geom.ravel()}
    assert touching == {scene.object_geom(0), scene.model.geom("table").id}
    assert scene.model.geom_rgba[[scene.object_geom(slot) for slot in range(1, 5)], 3].max() == 0.0


def test_the_bowl_costs_no_contacts(scene):
    scene.clear()
    scene.show_fixture("bowl", np.array([0.5, 0.0]))
    scene.settle()
    assert scene.data.ncon == 0


def test_clearing_the_table_forgets_the_episode_before(scene):
    place(scene, Shape.CUBE, Shape.CUBE)
    scene.show_fixture("cabinet", np.array([0.33, 0.0]))
    scene.data.qpos[scene.model.joint("drawer").qposadr[0]] = 0.1
    scene.clear()
    scene.settle()
    assert (scene.objects, scene.fixtures, scene.drawer_opening_m) == ([], set(), 0.0)
    assert scene.object_names() == ["background"]


def test_object_indices_name_objects_then_fixtures(scene):
    place(scene, Shape.CUBE, Shape.BLOCK)
    scene.show_fixture("zone", np.array([0.5, 0.1]))
    index, names = scene.object_index_of_geom(), scene.object_names()
    assert names == ["background", "red cube", "yellow block", "zone"]
    assert names[index[scene.object_geom(1)]] == "yellow block"
    assert index[-1] == 0  # where no geom is seen
