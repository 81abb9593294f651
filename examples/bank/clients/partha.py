"""Finds objects of Partha by name, from Python: plain Cap'n Proto RPC, no generated code.

Each address is one connection, whose bootstrap object is the node's connection manager. The
naming service says which object a name stands for, the binder where the object's node listens,
and that node's manager hands out the object itself.
"""

from pathlib import Path

import capnp

ROOT = Path(__file__).resolve().parents[3]
SERVICES = ROOT / "runtime/src/services/gen"
NAMING_ROOT = {"node": 0, "local": 1}


def load(path, parser=None):
    """The interfaces of a .capnp file: with a parser of its own, since each brings partha.capnp."""
    return (parser or capnp.SchemaParser()).load(str(path))


# One parser for these, so that what one of them answers can be handed to another.
services = capnp.SchemaParser()
naming = load(SERVICES / "naming.capnp", services)
binder = load(SERVICES / "binder.capnp", services)
system = load(SERVICES / "partha.capnp", services)


class Raised(Exception):
    """An exception of the interface, or an object that is not there; its members are `value`."""

    def __init__(self, name, value):
        super().__init__(f"{name}: {value}")
        self.name, self.value = name, value


def value_of(reply):
    """The result of a call, or the exception it raised."""
    members = reply.schema.fields
    if "raised" in members and reply.raised.which() != "none":
        name = reply.raised.which()
        raise Raised(name, getattr(reply.raised, name).to_dict())
    return reply.value if "value" in members else None


class System:
    """A system of nodes, known by the address of its naming service."""

    def __init__(self, address):
        self.address = address
        self.managers = {}

    async def manager(self, address):
        """The connection manager of the node that listens there."""
        if address not in self.managers:
            host, port = address.rsplit(":", 1)
            stream = await capnp.AsyncIoStream.create_connection(host=host, port=int(port))
            client = capnp.TwoPartyClient(stream)
            self.managers[address] = client.bootstrap().cast_as(system.ConnectionManager)
        return self.managers[address]

    async def bind(self, address, uid, interface):
        """The object of a node, as something that can be called."""
        manager = await self.manager(address)
        reply = await manager.initiate(object=uid, **{"class": interface.schema.node.id})
        return value_of(reply).object.cast_as(interface)

    async def lookup(self, name):
        """The entry of a name."""
        service = await self.bind(self.address, NAMING_ROOT, naming.NameService)
        return value_of(await service.lookup(path=name))

    async def find(self, name, interface):
        """The object of a name, wherever it is."""
        entry = await self.lookup(name)
        known = await self.lookup("partha/binder")
        service = await self.bind(known.hints[0], known.object, binder.Binder)
        location = value_of(await service.locate(object=entry.object))
        return await self.bind(location.node.addresses[0], entry.object, interface)
