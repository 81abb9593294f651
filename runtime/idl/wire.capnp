# What travels on Partha's native face, for people and for tools that look at a captured stream.
# The frames are written and read by hand (runtime/src/wire/frame.rs); a test decodes ours with the
# official compiler by this file. The foreign face speaks rpc.capnp instead.

@0xd1f3a6b6c1b0e5a7;

struct Frame {
  # Every frame is one message of one segment in Cap'n Proto's stream framing.
  # Frames that need less leave the rest out: short ones have one word of data.
  kind @0 :UInt16;
  # 1 invoke, 2 return, 3 cancel, 4 ping, 5 pong, 6 goodbye, 7 release.
  status @1 :UInt16;
  # Of a return: 0 if the body is the results' struct, else the kind of the error in the body.
  number @2 :UInt32;
  # The question of a call and its answer (0: no answer is wanted), the number of a ping, the
  # export that is released.
  node @3 :UInt64;
  # Of an invoke: the object's uid, or in this word the number of the receiver's export.
  local @4 :UInt64;
  interface @5 :UInt64;
  # The interface id of the method.
  method @6 :UInt16;
  # Its ordinal there.
  target @7 :UInt16;
  # 0: an object of the receiver's node; 1: an export of the receiver's.
  body @8 :AnyPointer;
  # Of an invoke: the parameters' struct, whose first pointer is the call context.
  capabilities @9 :List(Descriptor);
  # What the capability pointers of the body stand for, by index.
}

struct Descriptor {
  hostedByReceiver @0 :Bool;
  export @1 :UInt32;
  class @2 :UInt64;
}

struct Failure {
  # The body of a return with an error.
  completed @0 :UInt16;
  # Was it executed: 0 no, 1 perhaps, 2 yes.
  detail @1 :Text;
}

struct Hello {
  # Follows the magic "PARTHA\r\n", from either end.
  kind @0 :UInt16;
  # 0 hello, 1 refusal: then `name` is the reason.
  version @1 :UInt16;
  versionMin @2 :UInt16;
  shard @3 :UInt16;
  # The opener: the shard it wants, 65535 for any. The acceptor: the one it got.
  node @4 :UInt64;
  expected @5 :UInt64;
  # The node the opener wants to meet; 0 for whoever listens there.
  incarnation @6 :UInt32;
  shards @7 :UInt16;
  reason @8 :UInt16;
  # Of a refusal: the kind of the error.
  name @9 :Text;
  software @10 :Text;
}
