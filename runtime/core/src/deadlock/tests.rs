//! Deadlocks that are found, and none that are not there.

mod cluster;
mod oracle;
mod play;
mod protocol;
mod random;
mod table;
mod world;
