//! Who gets a lock and who waits.
