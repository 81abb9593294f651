//! Free ports of the loopback interface.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A TCP port of 127.0.0.1 that nobody listens on, never the same twice in one process.
///
/// Another process may take it before the caller does. A daemon that can listen on port 0 and say
/// which port it got is the better choice; this is for those that must be told beforehand, such
/// as one that is restarted in the same place.
///
/// # Panics
///
/// When the loopback interface has no port left.
#[track_caller]
#[must_use]
pub fn free_port() -> u16 {
    let mut handed_out = HANDED_OUT
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    for _ in 0..1_000 {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map(|address| address.port());
        match port {
            Ok(port) if handed_out.insert(port) => return port,
            Ok(_) => {}
            Err(error) => panic!("cannot listen on 127.0.0.1, port 0: {error}"),
        }
    }
    panic!("no port of 127.0.0.1 is left that this process has not used");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_can_be_listened_on() {
        let ports: BTreeSet<u16> = (0..20).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 20);
        let bound = ports
            .iter()
            .filter(|&&p| TcpListener::bind((Ipv4Addr::LOCALHOST, p)).is_ok());
        assert!(bound.count() > 0);
    }
}
