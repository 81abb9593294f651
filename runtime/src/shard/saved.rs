//! Saved replies as the store keeps them: which method answered, and its Return frame.
//!
//! The method stands with the reply so that a call id used for two different calls, a mistake of
//! the caller, is an error and never the answer of the other call.

use bytes::Bytes;
use partha_core::id::ClassId;

use crate::abi::Method;

/// The version of this layout, its first byte.
const VERSION: u8 = 1;
/// Version, interface id, ordinal.
const HEAD: usize = 1 + 8 + 2;

/// Whose answer a saved reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Of {
    pub(super) interface: ClassId,
    pub(super) ordinal: u16,
}

impl Of {
    pub(super) fn is(self, method: &Method) -> bool {
        self.interface == method.interface && self.ordinal == method.ordinal
    }
}

pub(super) fn encode(method: &Method, framed: &[u8]) -> Bytes {
    let mut body = Vec::with_capacity(HEAD + framed.len());
    body.push(VERSION);
    body.extend(method.interface.0.to_le_bytes());
    body.extend(method.ordinal.to_le_bytes());
    body.extend(framed);
    body.into()
}

/// None if it is of another version.
pub(super) fn decode(body: &[u8]) -> Option<(Of, &[u8])> {
    let (head, framed) = body.split_at_checked(HEAD)?;
    let (interface, ordinal) = head[1..].split_at(8);
    if head[0] != VERSION {
        return None;
    }
    let interface = ClassId(u64::from_le_bytes(interface.try_into().ok()?));
    let ordinal = u16::from_le_bytes(ordinal.try_into().ok()?);
    Some((Of { interface, ordinal }, framed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::connection_manager::METHODS;

    #[test]
    fn a_saved_reply_knows_its_method() {
        let body = encode(&METHODS[2], b"frame");
        let (of, framed) = decode(&body).unwrap();
        assert!(of.is(&METHODS[2]) && !of.is(&METHODS[1]));
        assert_eq!(framed, b"frame");
        assert_eq!(decode(&body[..HEAD - 1]), None);
        let mut newer = body.to_vec();
        newer[0] = 2;
        assert_eq!(decode(&newer), None);
    }
}
