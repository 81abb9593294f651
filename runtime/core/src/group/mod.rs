//! Groups of copies of one object: who is a copy, who leads, and in which order all of them get
//! what the leader does.
//!
//! A group has a [`View`]: a number and its members, the first of which *leads*. Views are kept
//! by the binder, which changes one only for whoever names the number it has now
//! ([`View::change`]): of two opinions about who is dead, one wins, and the other learns so. The
//! leader puts what it does into a *log*; an entry is *complete*, and may be told to anybody, when
//! every member of the present view has it on disk. A member that does not answer is excluded from
//! the view first. So each member has every complete entry, whoever is chosen to lead next has
//! them all, and a leader that was replaced without knowing can complete nothing: the new view's
//! first member refuses it, and it cannot exclude that one.
//!
//! This is primary-backup replication with a configuration service (Lamport, Malkhi and Zhou,
//! *Vertical Paxos and Primary-Backup Replication*, 2009; Lin, Yang, Zhang and Zhou, *PacificA*,
//! 2008) in the place of the lock rules of Little, McCue and Shrivastava's group view database
//! (1993); decision 0031 says why. Their `Exclude`, `Include` and `Insert` are changes of a view,
//! fenced by its number; their rule that only stores with the latest state are members holds.
//!
//! | module | decides |
//! |---|---|
//! | [`view`] | which change of a view is right: the binder's side |
//! | [`log`] | what a copy has: installed up to here, staged up to there |
//! | [`message`] | nothing: what members say to each other and to their shells |
//! | [`member`] | one copy's life: leading, following, joining, replacing a dead leader, reading |
//!
//! The bytes of entries and states are the shell's; here they have [`log::Stamp`]s.

pub mod log;
pub mod member;
pub mod message;
pub mod view;

pub use log::Stamp;
pub use member::{Digest, Member, Role, Rule};
pub use message::{Input, Message, NotAdded, Output, Write};
pub use view::{Change, ChangeRefused, Policy, View, Wish};
