//! Where an engine puts its outputs, in order.
//!
//! It is reused from one input to the next, so that handling an input allocates nothing.

use crate::output::Output;

/// A list of outputs to be done in order.
#[derive(Debug, Default)]
pub struct Outbox {
    outputs: Vec<Output>,
}

impl Outbox {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an output.
    #[inline]
    pub fn push(&mut self, output: Output) {
        self.outputs.push(output);
    }

    /// Takes all outputs out, first one first.
    #[inline]
    pub fn drain(&mut self) -> impl Iterator<Item = Output> + '_ {
        self.outputs.drain(..)
    }

    /// The outputs that wait to be done.
    #[must_use]
    pub fn as_slice(&self) -> &[Output] {
        &self.outputs
    }

    /// Whether nothing waits to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }
}
