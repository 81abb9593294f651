"""A plain Cap'n Proto client in Python: finds a node's connection manager, makes a counter, binds
it and calls it with named arguments. Started by tests/python.rs with the node's address and the
folder of the schemas; ends with status 1 at the first thing that is not as it should be."""

import asyncio
import sys

import capnp

capnp.remove_import_hook()


def is_equal(found, expected, what):
    if found != expected:
        sys.exit(f"{what}: {found!r}, not {expected!r}")


async def fails_with(promise, *parts):
    try:
        await promise
    except capnp.KjException as error:
        for part in parts:
            if part not in error.description:
                sys.exit(f"{part!r} is not in {error.description!r}")
    else:
        sys.exit(f"no exception with {parts!r}")


async def main(address, schemas):
    behaviour = capnp.load(f"{schemas}/behaviour.capnp", imports=[schemas])
    partha = capnp.load(f"{schemas}/partha.capnp", imports=[schemas])
    host, port = address.rsplit(":", 1)
    stream = await capnp.AsyncIoStream.create_connection(host=host, port=port)
    client = capnp.TwoPartyClient(stream)
    manager = client.bootstrap().cast_as(partha.ConnectionManager)

    node = (await manager.describe()).value
    is_equal(node.name, "a", "the node's name")
    classes = {described.name: described.id for described in node.classes}
    counter_class = behaviour.Counter.schema.node.id
    is_equal(classes["behaviour.Counter"], counter_class, "the id of Counter")

    # Asking twice under one call id makes one object.
    context = {"callNode": 12345, "callSequence": 1, "callIncarnation": 1}
    arguments = behaviour.Counter.New.new_message(value=5).to_bytes()
    create = {"context": context, "class": counter_class, "arguments": arguments}
    uid = (await manager.create(**create)).value
    again = (await manager.create(**create)).value
    is_equal((again.node, again.local), (uid.node, uid.local), "the object made again")

    bound = (await manager.initiate(**{"object": uid, "class": counter_class})).value
    is_equal(bound.cid.node, node.node, "the node of the binding")
    counter = bound.object.cast_as(behaviour.Counter)
    is_equal((await counter.value()).value, 5, "the value")
    is_equal((await counter.add(amount=3)).value, 8, "the sum")

    context = {"callNode": 12345, "callSequence": 2, "callIncarnation": 1}
    is_equal((await counter.add(amount=2, context=context)).value, 10, "a named call")
    context["again"] = True
    is_equal((await counter.add(amount=2, context=context)).value, 10, "the saved answer")
    is_equal((await counter.value()).value, 10, "executed once")

    taken = await counter.take(amount=100)
    is_equal(taken.raised.which(), "tooLittle", "the exception")
    is_equal(taken.raised.tooLittle.have, 10, "what there is")
    is_equal((await counter.value()).value, 10, "nothing was taken")

    # Several calls under way at once.
    sums = await asyncio.gather(*[counter.add(amount=1) for _ in range(20)])
    is_equal([answer.value for answer in sums], list(range(11, 31)), "the sums")

    class Heard(behaviour.Listener.Server):
        async def heard(self, value, **_):
            return -value

    is_equal((await counter.tell(listener=Heard())).value, -30, "what the listener said")
    is_equal((await counter.echo(data=b"\0\xff")).value, b"\0\xff", "the echo")
    await counter.putRow(key="b", value=2)
    await counter.putRow(key="a", value=1)
    rows = (await counter.rows(after="", limit=10)).value
    is_equal([(row.name, row.value) for row in rows], [("a", 1), ("b", 2)], "the rows")

    await fails_with(counter.panic(), "servant failed", "as asked")
    await fails_with(counter.give(amount=1), "malformed message", "to")
    nobody = {"node": uid.node, "local": uid.local + 1000}
    missing = await manager.initiate(**{"object": nobody, "class": 0})
    is_equal(missing.raised.which(), "noSuchObject", "an object that is not there")
    wrong = await manager.initiate(**{"object": uid, "class": behaviour.Other.schema.node.id})
    is_equal(wrong.raised.wrongClass.foundName, "behaviour.Counter", "its class")
    is_equal((await counter.value()).value, 30, "the value at last")
    print("the counter works")


asyncio.run(capnp.run(main(*sys.argv[1:])))
