import pytest

from vla.robots.twin.bus import LineFaults, ServoBus
from vla.robots.twin.protocol import Decoder, Instruction, Packet, from_signed, to_signed
from vla.robots.twin.servo import MODEL_NUMBER, Calibration, Register, Servo

MILLION = 1_000_000


def servos(count: int = 2, baud: int = MILLION) -> list[Servo]:
    entries = (Calibration(id=n, range_min=100 * n, range_max=4000) for n in range(1, count + 1))
    return [Servo(entry, baud=baud) for entry in entries]


def ask(bus: ServoBus, packet: Packet, now_s: float = 0.0, baud: int = MILLION) -> list[Packet]:
    decoder = Decoder()
    return [reply for data in bus.handle(packet, baud, now_s) for reply in decoder.feed(data)]


def read(servo_id: int, register: Register) -> Packet:
    return Packet(servo_id, Instruction.READ, bytes((register.address, register.size)))


def write(servo_id: int, register: Register, value: int) -> Packet:
    data = value.to_bytes(register.size, "little")
    return Packet(servo_id, Instruction.WRITE, bytes((register.address,)) + data)


def sync_goal(*values: int) -> Packet:
    data = b"".join(bytes((n,)) + v.to_bytes(2, "little") for n, v in enumerate(values, start=1))
    return Packet(0xFE, Instruction.SYNC_WRITE, bytes((42, 2)) + data)


def test_a_packet_is_encoded_as_in_the_manual():
    assert Packet(1, Instruction.PING).encode() == bytes.fromhex("ffff010201fb")


def test_packets_are_found_among_noise_and_in_pieces():
    stream = b"\x00\xff\x12" + Packet(3, 2, b"\x38\x02").encode() + b"\xff" + Packet(4, 1).encode()
    decoder = Decoder()
    found = [packet for byte in stream for packet in decoder.feed(bytes((byte,)))]
    assert found == [Packet(3, 2, b"\x38\x02"), Packet(4, 1)]


@pytest.mark.parametrize("place", range(2, 8))
def test_a_packet_with_one_wrong_bit_is_never_taken_for_one(place):
    damaged = bytearray(Packet(3, 2, b"\x38\x02").encode())
    damaged[place] ^= 0x10
    assert list(Decoder().feed(bytes(damaged))) == []


@pytest.mark.parametrize(("value", "sign_bit"), [(-5, 11), (5, 11), (-1000, 15), (0, 10)])
def test_signed_registers_come_back_as_they_went(value, sign_bit):
    assert to_signed(from_signed(value, sign_bit), sign_bit) == value


def test_a_servo_says_what_it_is():
    bus = ServoBus(servos())
    assert ask(bus, Packet(2, Instruction.PING)) == [Packet(2, 0)]
    (reply,) = ask(bus, read(2, Register.MODEL))
    assert int.from_bytes(reply.parameters, "little") == MODEL_NUMBER


def test_nobody_answers_for_a_servo_that_is_not_there():
    assert ask(ServoBus(servos()), Packet(7, Instruction.PING)) == []


def test_a_call_to_all_is_answered_one_by_one():
    assert ask(ServoBus(servos(3)), Packet(0xFE, Instruction.PING)) == [
        Packet(n, 0) for n in (1, 2, 3)
    ]


def test_a_servo_of_another_speed_hears_nothing():
    bus = ServoBus(servos(baud=115_200))
    assert ask(bus, Packet(1, Instruction.PING)) == []
    assert ask(bus, Packet(1, Instruction.PING), baud=115_200) == [Packet(1, 0)]


def test_a_sync_read_is_answered_in_the_order_asked():
    packet = Packet(0xFE, Instruction.SYNC_READ, bytes((9, 2, 2, 1)))
    replies = ask(ServoBus(servos()), packet)
    assert [(r.servo_id, int.from_bytes(r.parameters, "little")) for r in replies] == [
        (2, 200),
        (1, 100),
    ]


def test_a_sync_write_reaches_every_servo_and_nobody_answers():
    bus = ServoBus(servos())
    assert ask(bus, sync_goal(1500, 2500)) == []
    assert [servo[Register.GOAL_POSITION] for servo in bus.servos] == [1500, 2500]


def test_a_new_id_is_acknowledged_under_the_old_one():
    bus = ServoBus(servos(1))
    assert ask(bus, write(1, Register.ID, 9)) == [Packet(1, 0)]
    assert ask(bus, Packet(9, Instruction.PING)) == [Packet(9, 0)]


def test_memory_is_kept_over_power_off_only_when_unlocked():
    (servo,) = servos(1)
    servo.write(Register.P_COEFFICIENT.address, bytes((16,)))
    servo.write(Register.LOCK.address, bytes((1,)))
    servo.write(Register.I_COEFFICIENT.address, bytes((7,)))
    servo.power_up()
    assert servo[Register.P_COEFFICIENT] == 16
    assert servo[Register.I_COEFFICIENT] == 0


def test_a_servo_powers_up_loose_and_wanting_to_be_where_it_is():
    (servo,) = servos(1)
    servo.place(1234)
    servo.write(Register.TORQUE_ENABLE.address, bytes((1,)))
    servo.power_up()
    assert not servo.is_enabled
    assert servo[Register.GOAL_POSITION] == 1234


def test_measurements_cannot_be_written():
    (servo,) = servos(1)
    servo.place(1234)
    servo.write(Register.PRESENT_POSITION.address, bytes((0, 0)))
    assert servo[Register.PRESENT_POSITION] == 1234


def test_the_homing_offset_shifts_the_reading():
    (servo,) = servos(1)
    servo.place(2000)
    servo[Register.HOMING_OFFSET] = -48
    servo.place(2000)
    assert servo[Register.PRESENT_POSITION] == 2048


def test_about_one_packet_in_so_many_is_damaged_after_the_first_command():
    bus = ServoBus(servos(1), LineFaults(corrupt_every=10))
    before = [ask(bus, Packet(1, Instruction.PING)) for _ in range(100)]
    ask(bus, sync_goal(1000))
    after = [ask(bus, Packet(1, Instruction.PING)) for _ in range(1000)]
    assert all(before)
    assert 700 < sum(map(bool, after)) < 900  # asked and answered, each one in ten damaged


def test_a_dead_bus_is_silent_and_comes_back():
    bus = ServoBus(servos(1), LineFaults(dies_at_s=1.0, dies_for_s=2.0))
    ask(bus, sync_goal(1000), now_s=100.0)
    answers = {
        t: bool(ask(bus, Packet(1, Instruction.PING), now_s=t))
        for t in (100.9, 101.1, 102.9, 103.1)
    }
    assert answers == {100.9: True, 101.1: False, 102.9: False, 103.1: True}


def test_a_bus_that_loses_power_lets_go_of_the_arm():
    bus = ServoBus(servos(1), LineFaults(dies_at_s=1.0, loses_power=True))
    ask(bus, write(1, Register.TORQUE_ENABLE, 1))
    ask(bus, sync_goal(1000), now_s=100.0)
    assert bus.servos[0].is_enabled
    assert bus.is_dead(101.5)
    assert not bus.servos[0].is_enabled
