//! What is made of the figures: tables on the terminal, lines of JSON, a page with plots.

pub(crate) mod html;
pub(crate) mod json;
mod plot;
pub(crate) mod table;
