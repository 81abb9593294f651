//! The system module, which is built in: what every emitted schema imports.

use std::path::PathBuf;
use std::sync::OnceLock;

use partha_idl::SourceMap;
use partha_idl::model::{Model, Module};

use crate::intrinsic;

/// The text of `partha.idl`.
pub const SYSTEM_IDL: &str = include_str!("../../runtime/idl/partha.idl");

/// Sources that know the system module: where every compilation begins.
#[must_use]
pub fn sources() -> SourceMap {
    let mut sources = SourceMap::new();
    sources.add_builtin(&file_name(), SYSTEM_IDL);
    sources
}

/// The system module alone, resolved.
pub(crate) fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let mut sources = SourceMap::new();
        sources.add_memory(file_name(), SYSTEM_IDL);
        partha_idl::compile(&mut sources, &[PathBuf::from(file_name())])
            .unwrap_or_else(|errors| panic!("the built-in module:\n{}", errors.render(false)))
    })
}

/// The system module itself.
pub(crate) fn module() -> &'static Module {
    &model().modules[0]
}

fn file_name() -> String {
    format!("{}.idl", intrinsic::MODULE)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_built_in_module_compiles() {
        assert_eq!(super::module().name, "partha");
    }
}
