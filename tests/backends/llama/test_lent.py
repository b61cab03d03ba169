"""Devices that other machines lend: no more is taken of each than it lends."""

from backends.llama.lent import LentDevices
from backends.llama.offload import Device
from backends.rpc import backend_pb2 as pb

GIB = 2**30


def far(name: str) -> Device:
    return Device(name, "rpc", 64 * GIB, 64 * GIB)


def test_two_lenders_of_one_name_are_told_apart() -> None:
    one = pb.RemoteDevice(name="node", memory_bytes=4 * GIB, share=0.5)
    two = pb.RemoteDevice(name="node", memory_bytes=6 * GIB, share=0.5)
    lent = LentDevices([(one, ["RPC0"]), (two, ["RPC1", "RPC2"])], [])

    limited = lent.as_lent([far("RPC0"), far("RPC1"), far("RPC2"), Device("CUDA0", "cuda", 8 * GIB, 8 * GIB)])

    assert [device.free // GIB for device in limited] == [4, 3, 3, 8]
    wishes = lent.wishes(10)
    assert wishes is not None
    assert wishes.tensor_split == (0.5, 0.25, 0.25)
    assert wishes.gpu_layers == 10
