# What travels on Partha's native face, for people and for tools that look at a captured stream.
# The frames are written and read by hand (runtime/src/wire/frame.rs); a test decodes ours with the
# official compiler by this file. The foreign face speaks rpc.capnp instead.

@0xd1f3a6b6c1b0e5a7;

struct Frame {
  # Every frame is one message of one segment in Cap'n Proto's stream framing.
  # Frames that need less leave the rest out: short ones have one word of data.
  kind @0 :UInt16;
  # 1 invoke, 2 return, 3 cancel, 4 ping, 5 pong, 6 goodbye, 7 release, 8 action, 9 part.
  status @1 :UInt16;
  # Of a return: 0 if the body is the results' struct, else the kind of the error in the body.
  number @2 :UInt32;
  # The question of a call or request and its answer (0: no answer is wanted), the number of a
  # ping, the export that is released, which of the messages under way a part belongs to.
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
  # Of a part: bytes of the message's frame. A part is always laid out as struct, then content.
  # Of an action: struct Action. Of the answer to one: struct Ended or Told.
  capabilities @9 :List(Descriptor);
  # What the capability pointers of the body stand for, by index.
  report @10 :Report;
  # Of the answer to a call in an action, also of one with an error.
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
  victim @2 :Uid;
  # The action that has to be aborted because of it, if any.
  hasBegun @3 :Bool;
  # The servant had begun: the error came from within the operation.
  moved @4 :Moved;
  # Where the object is now, if the error is that it has moved.
}

struct Moved {
  node @0 :UInt64;
  moves @1 :UInt64;
  # How often it had moved when it got there: the higher number is the newer word.
  addresses @2 :List(Text);
  # Where the node listens, as far as the sender knows; at most 16.
}

struct Report {
  # What the answer of a call in an action says about it.
  participants @0 :List(Participant);
  # The shards that take part because of the call.
  aborted @1 :List(Uid);
  # Nested actions that were aborted; one that the call is made in has to be.
}

struct Uid {
  node @0 :UInt64;
  local @1 :UInt64;
}

struct Site {
  node @0 :UInt64;
  shard @1 :UInt16;
}

struct Participant {
  node @0 :UInt64;
  join @1 :UInt64;
  # The number of its mirror of the action.
  incarnation @2 :UInt32;
  shard @3 :UInt16;
  updated @4 :Bool;
  # It has changed something persistent.
  decider @5 :Uid;
  # The first replicated object that it has changed, if it has changed no other objects; of a part
  # its object.
  part @6 :Bool;
  # It is the work at one replicated object, which whoever leads that takes over; version 5.
}

struct Action {
  # Between shards, about actions. A message has question 0 and may get lost; a request comes
  # from whoever runs an action and is answered by a return.
  shard @0 :UInt16;
  # The receiver's shard that it is for, unless `home` is there; modulo the number of shards.
  from @1 :UInt16;
  # The sender's shard; 65535 for whoever runs an action.
  home @2 :Uid;
  # It is for the shard that an object with this uid would have.
  union {
    prepare @3 :Prepare;
    vote @4 :VoteOf;
    commit @5 :Uid;
    acknowledge @6 :Uid;
    abort @7 :Uid;
    merge @8 :Merge;
    query @9 :Uid;
    verdict @10 :VerdictOf;
    waits @11 :List(Edge);
    resumed @12 :Resumed;
    probe @13 :List(Edge);
    confirm @14 :Confirm;
    confirmed @15 :Confirmed;
    break @16 :Break;
    request @17 :Request;
    # Commit; answered by Ended.
    ask @18 :Uid;
    # What became of it; answered by Told.
    voteMoved @19 :VoteOf;
    # A vote that names where objects went; version 4.
    group @20 :GroupNews;
    # Between copies of an object; version 4.
    prepareGroups @21 :Prepare;
    voteGroups @22 :VoteOf;
    commitPart @23 :PartOf;
    acknowledgeGroups @24 :AcknowledgeOf;
    abortPart @25 :PartOf;
    queryGroups @26 :QueryOf;
    verdictPart @27 :VerdictOf;
    requestDecider @28 :Request;
    askDecider @29 :QueryOf;
    mergePart @30 :Merge;
    # As those without the second word of their names, with what is said of replicated objects;
    # version 5.
  }
}

struct GroupNews {
  # What a copy of an object tells another one. The fields that a kind has no use for are 0.
  object @0 :Uid;
  number @1 :UInt64;
  # Of the view.
  view @2 :UInt64;
  index @3 :UInt64;
  # An entry: the one before those told (adopt, append), the last that the sender has on disk
  # (appended), the last that is installed (hello) or in the state (snapshot).
  complete @4 :UInt64;
  # The entry up to which all are complete (of a readAt: that the reads have to show); of a hello
  # the view of the last entry.
  asked @5 :UInt64;
  # The leader's time, which is answered with the promise not to replace it; of a read and its
  # answer the member's time; of a hello the index of the last entry.
  kind @6 :UInt16;
  # 0 adopt, 1 append, 2 appended, 3 stale, 4 hello, 5 check, 6 snapshot; 7 read, 8 readAt,
  # 9 differs with version 5.
  members @7 :List(UInt64);
  # Of the view, the leader first: adopt, stale, snapshot.
  entries @8 :List(GroupEntry);
  # Of the log, in order: adopt, append. Of a differs the entry in question, with the digest of
  # what the sender has come to, 32 bytes, in the place of its body.
  page @9 :StatePage;
  # With a snapshot.
  empty @10 :Bool;
  # Hello: the copy has no state. ReadAt: reads are to come to the leader.
}

struct GroupEntry {
  view @0 :UInt64;
  # The view that it was made in.
  index @1 :UInt64;
  body @2 :Data;
  # An encoded batch of the store.
}

struct StatePage {
  # A part of an object's state; the plain record is in the first.
  class @0 :UInt64;
  schema @1 :UInt64;
  version @2 :UInt64;
  first @3 :Bool;
  last @4 :Bool;
  state @5 :Data;
  rows @6 :List(StateRow);
  replies @7 :List(StateReply);
  actions @8 :Data;
  # What is about actions at the object: an entry, see runtime/store/src/entry.rs.
  sending @9 :UInt64;
  # Which reading of the state it is of, from one; later ones of the leader of a view count higher.
  number @10 :UInt32;
  # Of the page in that reading, from zero.
}

struct StateRow {
  part @0 :UInt16;
  key @1 :Data;
  value @2 :Data;
}

struct StateReply {
  node @0 :UInt64;
  sequence @1 :UInt64;
  # Of the call.
  keepMs @2 :UInt64;
  # How long it is still to be kept.
  incarnation @3 :UInt32;
  # Of the caller.
  body @4 :Data;
}

struct Prepare {
  action @0 :Uid;
  incarnation @1 :UInt32;
  # The life of the participant that did the work.
  join @2 :UInt64;
  # The number of the mirror that did.
  aborted @3 :List(Uid);
  decider @4 :Uid;
  # In `prepareGroups`: the replicated object whose log is to have the decision, if it is one's.
  part @5 :Uid;
  # In `prepareGroups`: for whoever leads this replicated object, the work there alone is meant. One
  # of the two is there.
}

struct PartOf {
  action @0 :Uid;
  part @1 :Uid;
  # A replicated object: what the action has prepared of it, and whoever leads it, are meant.
}

struct AcknowledgeOf {
  action @0 :Uid;
  groups @1 :List(Uid);
  # Replicated objects whose logs have the end; at most 1,024.
  decider @2 :Uid;
  # The replicated object whose log has the decision, if it is one's.
  site @3 :Bool;
  # Nothing of the action is left in the sender's own store.
}

struct QueryOf {
  action @0 :Uid;
  decider @1 :Uid;
  # The replicated object whose log has the decision, if it is one's.
  part @2 :Uid;
  # The replicated object whose leader asks, if it does.
}

struct VoteOf {
  action @0 :Uid;
  vote @1 :Vote;
  moved @2 :List(Participant);
  # Where objects went that had work of the action; never empty in `voteMoved`, not there in
  # `vote`.
  groups @3 :List(Uid);
  # In `voteGroups`: the replicated objects that it has prepared; at most 1,024.
  decider @4 :Uid;
  # In `voteGroups`: as the prepare said.
  part @5 :Uid;
  # In `voteGroups`: as the prepare said.
}

enum Vote {
  yes @0;
  readOnly @1;
  no @2;
}

struct VerdictOf {
  action @0 :Uid;
  verdict @1 :Verdict;
  part @2 :Uid;
  # In `verdictPart`: as it was asked.
}

enum Verdict {
  committed @0;
  aborted @1;
  inFlight @2;
}

struct Merge {
  action @0 :Uid;
  parent @1 :Uid;
  part @2 :Uid;
  # In `mergePart`: for whoever leads this replicated object, the work there alone is meant.
}

struct Request {
  action @0 :Uid;
  coordinator @1 :List(Participant);
  # One: who is asked, as whoever asks knows it.
  others @2 :List(Participant);
  aborted @3 :List(Uid);
  decider @4 :Uid;
  # In `requestDecider`: the replicated object whose log is to have the decision.
}

struct WaitId {
  node @0 :UInt64;
  number @1 :UInt64;
  incarnation @2 :UInt32;
  shard @3 :UInt16;
}

struct Party {
  path @0 :List(Uid);
  # Outermost first.
  enclosing @1 :UInt16;
  # How many of them lie across the last top-level boundary.
  home @2 :UInt64;
  bornMs @3 :UInt64;
}

struct Edge {
  wait @0 :WaitId;
  object @1 :Uid;
  waiter @2 :Party;
  owner @3 :Party;
}

struct Resumed {
  wait @0 :WaitId;
  root @1 :Uid;
}

struct Confirm {
  cycle @0 :UInt64;
  to @1 :Site;
  edge @2 :List(Edge);
  # One.
}

struct Confirmed {
  cycle @0 :UInt64;
  wait @1 :WaitId;
  holds @2 :Bool;
}

struct Break {
  wait @0 :WaitId;
  victim @1 :Uid;
  cycle @2 :List(Edge);
}

struct Ended {
  # The body of the answer to a request to commit.
  end @0 :End;
  fault @1 :Fault;
  # If the store failed.
  site @2 :Site;
  # Who is to blame, where the end names somebody.
}

enum End {
  committed @0;
  lost @1;
  refused @2;
  silent @3;
  busy @4;
  store @5;
  ended @6;
  unknown @7;
  # Whoever leads the decider can tell, or will be able to.
}

enum Fault {
  store @0;
  fenced @1;
  full @2;
  exists @3;
}

struct Told {
  # The body of the answer to a question about an outcome.
  known @0 :Bool;
  # Or the store could not tell.
  verdict @1 :Verdict;
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
  messageBytesMax @11 :UInt64;
  # The largest message it takes; 0: 4 MiB.
}
