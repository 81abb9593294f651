//! Targets of what lies on disk, and of scale: P7 to P14.

use super::Target;

pub(super) const TARGETS: &[Target] = &[];
