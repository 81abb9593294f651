# What the benchmarks call at their peer capnp-rpc. After a change, with capnpc's `capnpc-rust` on
# the PATH:
#   capnp compile -orust:bench/src --src-prefix=bench/src bench/src/null.capnp bench/src/cell.capnp
# What comes out, `null_capnp.rs` and `cell_capnp.rs`, is committed, so that no build needs `capnp`,
# and left as that generator writes it: its layout, and the panics in the place of what it does not
# support (builders of capabilities cannot be made empty), are its own.
@0xd7c1f0c3a5b8e2a4;

interface Null {
  call @0 (n :UInt64) -> (n :UInt64);
  echo @1 (data :Data) -> (data :Data);
}
