# The null call of the benchmark, for its peer capnp-rpc. After a change, with capnpc's
# `capnpc-rust` on the PATH:
#   capnp compile -orust:bench/src --src-prefix=bench/src bench/src/null.capnp
@0xd7c1f0c3a5b8e2a4;

interface Null {
  call @0 (n :UInt64) -> (n :UInt64);
}
