# What a plain Cap'n Proto client needs of Partha to call a `Cell`: the few methods and structs out
# of `gen/null.capnp` and `gen/partha.capnp`, with the same ids and the same layout as far as they
# go. `bump` is not called, but there is no @2 without an @1. A null context means: no action, no
# call id, the default deadline. `cell_capnp.rs` is made of it as `null.capnp` says.
@0xc8fd2f7a1e0b9d35;

struct Uid @0x9a73a22848907059 {
  node @0 :UInt64;
  local @1 :UInt64;
}

struct Bound @0xaf19dca027d4bbc4 {
  cid @0 :AnyPointer;
  class @1 :UInt64;
  object @2 :Cell;
}

interface Manager @0xafce47e50819150f {
  initiate @0 (context :AnyPointer, object :Uid, class :UInt64) -> (value :Bound);
}

interface Cell @0xf49c32e44e7b4a6c {
  call @0 (context :AnyPointer, value :UInt64) -> (value :UInt64);
  bump @1 () -> ();
  echo @2 (context :AnyPointer, data :Data) -> (value :Data);
}
