//! Labels of a node: what places for objects are chosen by.

use super::NodeBuilder;
use crate::error::{ErrorKind, Result, SystemError};
use crate::services::binder::Label;

impl NodeBuilder {
    /// Something that is true of the node, as `zone` and `a`: places for objects are chosen by it
    /// ([`crate::Place::Labelled`]), and `partha nodes` shows it.
    ///
    /// A node has at most [`LABELS_MAX`](crate::services::binder::LABELS_MAX) labels, one of each
    /// name. What they may look like, [`Label::check`] says.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push(Label {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Its labels by name.
    pub(super) fn checked_labels(&mut self) -> Result<Vec<Label>> {
        let mut labels = std::mem::take(&mut self.labels);
        Label::check_all(&labels)
            .map_err(|reason| SystemError::new(ErrorKind::BadOperation, reason))?;
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(labels)
    }
}
