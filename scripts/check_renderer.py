"""Draws one small picture without a screen; ends with an error where that is impossible."""

import mujoco

SCENE = """
<mujoco>
  <visual><quality offsamples="0" shadowsize="0"/></visual>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="sphere" size="1" rgba="1 0 0 1"/>
    <camera name="front" pos="0 -3 0" xyaxes="1 0 0 0 0 1"/>
  </worldbody>
</mujoco>
"""


def main() -> None:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, height=32, width=32) as renderer:
        renderer.update_scene(data, camera="front")
        red, green, blue = renderer.render()[16, 16]
    if not (red > 2 * green and red > 2 * blue):
        raise SystemExit(f"a red ball was drawn as rgb({red}, {green}, {blue})")


if __name__ == "__main__":
    main()
