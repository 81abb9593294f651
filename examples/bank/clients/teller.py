"""A teller in Python: pays in and out and says what accounts hold.

    python examples/bank/clients/teller.py                          # what alice and bob hold
    python examples/bank/clients/teller.py deposit /bank/alice 5
    python examples/bank/clients/teller.py withdraw /bank/bob 5
    python examples/bank/clients/teller.py balance /bank/alice

Needs pycapnp 2 (`pip install pycapnp`) and a running system (`partha dev examples/bank`), whose
naming service listens at 127.0.0.1:7401 or where PARTHA_NAMING says.
"""

import asyncio
import os
import sys

import capnp
import partha

bank = partha.load(partha.ROOT / "examples/bank/src/gen/bank.capnp")


async def main(words):
    system = partha.System(os.environ.get("PARTHA_NAMING", "127.0.0.1:7401"))
    verb, *rest = words or ["balance", "/bank/alice", "/bank/bob"]
    if verb == "balance" and rest:
        for name in rest:
            account = await system.find(name, bank.Account)
            print(name, partha.value_of(await account.balance()))
    elif verb in ("deposit", "withdraw") and len(rest) == 2:
        account = await system.find(rest[0], bank.Account)
        method = getattr(account, verb)
        print(rest[0], partha.value_of(await method(amount=int(rest[1]))))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    try:
        asyncio.run(capnp.run(main(sys.argv[1:])))
    except (partha.Raised, OSError) as error:
        sys.exit(f"error: {error}")
    except capnp.KjException as error:
        sys.exit(f"error: {error.description}")
