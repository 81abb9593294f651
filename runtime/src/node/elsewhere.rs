//! What is said of servants that run elsewhere when a node is built, and asked of it later.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use partha_core::id::{ClassId, Uid};

use super::{Home, Node, NodeBuilder, thread_error};
use crate::abi::Class;
use crate::client::Client;
use crate::config::{BLOCKING_MAX, SERVERS_MAX};
use crate::elsewhere::servers::{self, Program, Servers, Wish};
use crate::elsewhere::{ActivationPolicy, Elsewhere, Runaway, ServerReport, Stuck, Watch};
use crate::error::{ErrorKind, Result, SystemError};

/// As the builder is told.
#[derive(Debug)]
pub(super) struct Wishes {
    policies: HashMap<ClassId, ActivationPolicy>,
    servers_max: usize,
    blocking_max: usize,
    program: Program,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            policies: HashMap::new(),
            servers_max: SERVERS_MAX,
            blocking_max: BLOCKING_MAX,
            program: Program {
                program: None,
                arguments: Vec::new(),
                variables: Vec::new(),
            },
        }
    }
}

impl Wishes {
    /// Whether any class is to have processes of its own.
    pub(super) fn wants_processes(&self) -> bool {
        !self.policies.is_empty()
    }
}

impl NodeBuilder {
    /// A class it can run, with where its servant is to run: [`NodeBuilder::class`] says
    /// [`ActivationPolicy::InProcess`].
    ///
    /// A server process is this program, started again with the same arguments. There
    /// [`NodeBuilder::start`] does not return: it executes calls until the node is gone and then
    /// ends the process. So what a program does before that call is done in each server process
    /// too, and what it does after it in none; [`NodeBuilder::server_command`] names another
    /// program. A servant that crashes its process fails the calls that it has there with
    /// [`ErrorKind::Servant`], and nothing else; the next call starts another process and finds
    /// the committed state.
    ///
    /// The state goes to the process with each call and comes back with its answer. Constructors
    /// run in the node's process all the same. Call-backs cannot be passed to such a class, nor
    /// from it, and it has no rows. What the servant calls it finds by names and by the binder,
    /// as the node does; nodes that only this process was introduced to
    /// ([`Locator::introduce`](crate::services::Locator::introduce)) it does not know.
    ///
    /// The process is told what it is by the variable `PARTHA_SERVER_PROCESS` and by its standard
    /// input, which nothing else may read before. Programs that a servant starts may have nodes
    /// of their own.
    #[must_use]
    pub fn class_with(mut self, class: Class, policy: ActivationPolicy) -> Self {
        match policy {
            ActivationPolicy::InProcess => {}
            ActivationPolicy::ProcessPerClass | ActivationPolicy::ProcessPerObject => {
                self.elsewhere.policies.insert(class.info().id, policy);
            }
        }
        self.class(class)
    }

    /// The program that server processes are made of, where it is not this one as it was started:
    /// it has to come to a [`NodeBuilder::start`] of a node of the same name with the same
    /// classes, with the standard input that it was started with.
    #[must_use]
    pub fn server_command<A: Into<OsString>>(
        mut self,
        program: impl Into<OsString>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.elsewhere.program.program = Some(program.into());
        self.elsewhere.program.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// An environment variable for server processes, besides those of this one.
    #[must_use]
    pub fn server_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let variables = &mut self.elsewhere.program.variables;
        variables.push((name.into(), value.into()));
        self
    }

    /// How many server processes it may have at a time; 64 if not said.
    #[must_use]
    pub fn servers_max(mut self, max: usize) -> Self {
        self.elsewhere.servers_max = max;
        self
    }

    /// How many methods marked `#[blocking]` may run at a time, each on a thread of its own; 64
    /// if not said.
    #[must_use]
    pub fn blocking_max(mut self, max: usize) -> Self {
        self.elsewhere.blocking_max = max;
        self
    }

    /// Serves as a server process if that is what this process was started for, and never
    /// returns then.
    pub(super) async fn serve_if_child(&mut self) -> Result<()> {
        let Some(wish) = Wish::of_process()? else {
            return Ok(());
        };
        let classes = std::mem::take(&mut self.classes);
        let naming = self.naming_elsewhere(wish.address());
        let blocking_max = self.elsewhere.blocking_max;
        let serving = wish.serve(&self.name, naming, classes, blocking_max);
        let Err(error) = serving.await;
        // The node is told by the exit status, people by this.
        eprintln!("a server process cannot begin: {error}");
        std::process::exit(SERVER_FAILED);
    }

    /// Where a server process of the node at this address finds the naming service.
    fn naming_elsewhere(&self, node: SocketAddr) -> Option<String> {
        let known = self.well_known.as_ref().map(|known| known.uid);
        // What is this very process for the node is another one there.
        let own = (known == Some(Uid::NAMING_ROOT)).then(|| node.to_string());
        self.naming.clone().or(own)
    }

    /// What the shards have to know.
    pub(super) fn elsewhere(&self) -> Result<Elsewhere> {
        let persistent = |id: &ClassId| {
            let mut classes = self.classes.iter().map(Class::info);
            classes.any(|info| info.id == *id && info.persistent)
        };
        if let Some(class) = self.elsewhere.policies.keys().find(|id| !persistent(id)) {
            let detail = format!(
                "class {class} is not persistent: its objects live in the process that makes \
                 them; serve it with NodeBuilder::class"
            );
            return Err(SystemError::new(ErrorKind::BadOperation, detail));
        }
        let policies = self.elsewhere.policies.clone();
        let idle = Duration::from_nanos(self.limits.idle_ns);
        let servers = Servers::new(policies, self.elsewhere.servers_max, idle);
        Ok(Elsewhere::new(self.elsewhere.blocking_max, servers))
    }

    /// Starts the threads that watch the others and the server processes.
    pub(super) fn start_watching(
        &self,
        home: &Arc<Home>,
        client: &Client,
        address: Option<SocketAddr>,
        threads: &mut Vec<std::thread::JoinHandle<()>>,
    ) -> Result<Watch> {
        let servers = &home.registry.elsewhere.servers;
        if servers.are_used() {
            let address = address.ok_or_else(|| {
                let detail = "server processes of a node that listens nowhere";
                SystemError::new(ErrorKind::Internal, detail)
            })?;
            let (program, name) = (self.elsewhere.program.clone(), self.name.clone());
            let keeper = servers::start(servers.clone(), client.clone(), name, address, program);
            threads.push(keeper.map_err(|error| thread_error(&error))?);
        }
        Watch::begin(Arc::downgrade(home)).map_err(|error| thread_error(&error))
    }
}

/// The exit status of a server process that cannot begin; as sysexits has it for software.
const SERVER_FAILED: i32 = 70;

impl Node {
    /// Servants that have kept their shard's thread for more than a second, and with it all
    /// other objects of the shard.
    #[must_use]
    pub fn stuck(&self) -> Vec<Stuck> {
        self.home.stuck()
    }

    /// Servants of `#[blocking]` methods that go on although their calls were killed.
    #[must_use]
    pub fn runaways(&self) -> Vec<Runaway> {
        self.home.runaways()
    }

    /// Its server processes.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerReport> {
        self.home.servers()
    }
}

impl Home {
    /// Servants of `#[blocking]` methods that go on although their calls were killed.
    pub(crate) fn runaways(&self) -> Vec<Runaway> {
        self.registry.elsewhere.blocking.runaways()
    }

    /// The server processes of the node.
    pub(crate) fn servers(&self) -> Vec<ServerReport> {
        self.registry.elsewhere.servers.reports()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::message;
    use crate::services::naming::name_service;

    #[test]
    fn who_is_the_naming_service_is_it_for_its_server_processes() {
        let address: SocketAddr = "127.0.0.1:7411".parse().unwrap();
        let names = |builder: NodeBuilder| builder.naming_elsewhere(address);
        assert_eq!(names(Node::builder()), None);
        let other = "127.0.0.1:9".to_owned();
        assert_eq!(names(Node::builder().naming(&*other)), Some(other.clone()));
        let itself = || {
            let (data, pointers) = (0, 0);
            let nothing = message(data, pointers, |_, _| {});
            Node::builder().well_known(Uid::NAMING_ROOT, &name_service::INFO, nothing)
        };
        assert_eq!(names(itself()), Some(address.to_string()));
        assert_eq!(names(itself().naming(&*other)), Some(other));
    }
}
