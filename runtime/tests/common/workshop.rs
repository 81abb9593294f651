//! Nodes whose workers have processes of their own. A test that uses it has an ignored
//! `server_process`, which calls [`be_a_process`].

use std::path::Path;

use partha::{ActivationPolicy, NodeBuilder};

use crate::common::{builder, run};
use crate::worker::WorkerServant;
use crate::worker::elsewhere::worker as workers;

/// A node whose workers have processes, not started; server processes come here too.
pub fn workshop(dir: &Path, policy: ActivationPolicy) -> NodeBuilder {
    let node = builder(dir).class_with(workers::class(WorkerServant), policy);
    let program = std::env::current_exe().unwrap();
    node.server_command(
        program,
        ["--ignored", "--exact", "server_process", "--nocapture"],
    )
}

/// What a server process does; nothing where nobody has started one.
pub fn be_a_process() {
    if std::env::var_os("PARTHA_SERVER_PROCESS").is_none() {
        return;
    }
    run(async {
        let node = workshop(Path::new("never-used"), ActivationPolicy::ProcessPerObject);
        let never = node.start().await;
        panic!("the builder returned {never:?}");
    });
}
