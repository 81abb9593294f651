//! No two have an object at the same time in modes that exclude each other, unless one is an
//! ancestor of the other.

use partha_core::action::path::Path;
use partha_core::engine::LockView;

use crate::actions::world::Check;

/// Looks at one locked object.
pub(crate) fn check(view: &LockView) -> Check {
    for (index, one) in view.holders.iter().enumerate() {
        for other in &view.holders[index + 1..] {
            let related =
                is_ancestor(&one.path, &other.path) || is_ancestor(&other.path, &one.path);
            if one.mode.excludes(other.mode) && !related {
                return Err(format!(
                    "locks: {one:?} and {other:?} both have {}",
                    view.uid
                ));
            }
        }
    }
    Ok(())
}

fn is_ancestor(one: &Path, other: &Path) -> bool {
    one.enclosing() == other.enclosing() && other.whole().starts_with(one.whole())
}
