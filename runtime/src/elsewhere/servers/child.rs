//! A server process itself.
//!
//! It is the node's program, started again with the same arguments and one variable more in its
//! environment, which names the pipe that is its standard input. What it is to do can be read
//! there, once: programs that its servants start have the variable too, but find nothing in the
//! pipe, or another input, and so are what they would be anywhere.
//!
//! Where the program comes to build its node, it becomes a client of the node instead, offers an
//! object that executes calls, and leaves when the node has gone. It opens no store and listens
//! nowhere; what it is told of is one class, whose servant the program has given to the builder.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use partha_core::id::{CallId, ClassId, Incarnation, Peer};
use partha_wire::Message;
use tokio::sync::Notify;

use crate::abi::{Class, End};
use crate::action::Branch;
use crate::client::{Client, random_node};
use crate::context::{Asked, Context};
use crate::elsewhere::blocking::Blocking;
use crate::elsewhere::{Cancel, Done, Order, drive};
use crate::error::{ErrorKind, Result, SystemError};
use crate::net::connection::lock;
use crate::net::links::Links;
use crate::services::Naming;
use crate::system::server_process::Servant;
use crate::system::{Executed, Execution, ExecutionEnd, ServerProcess};
use crate::wire::frame;

/// What a process is started for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Where the node listens.
    pub(super) address: SocketAddr,
    pub(super) token: Vec<u8>,
    pub(super) class: ClassId,
    /// The node's name.
    pub(super) node: String,
}

/// More than a wish ever takes, and no more than a pipe holds.
const TEXT_BYTES_MAX: usize = 4096;

/// Executes calls.
struct Runner {
    class: Class,
    blocking: Arc<Blocking>,
    running: Arc<Running>,
}

/// Calls that have not ended, by number.
#[derive(Default)]
struct Running {
    calls: Mutex<HashMap<u64, Cancel>>,
    ended: Notify,
}

/// A call has not ended while somebody has this.
struct Unended {
    running: Arc<Running>,
    number: u64,
}

impl Wish {
    /// The environment variable that names the pipe, by its inode.
    pub(super) const VARIABLE: &'static str = "PARTHA_SERVER_PROCESS";

    /// What a process is to have as its standard input, and the variable's value.
    pub(super) fn pipe(&self) -> io::Result<(PipeReader, String)> {
        let text = self.to_string();
        if text.len() > TEXT_BYTES_MAX {
            let why = "the node's name is too long to be told to its server processes";
            return Err(io::Error::other(why));
        }
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(text.as_bytes())?;
        let inode = file(&reader)?.metadata()?.ino();
        Ok((reader, inode.to_string()))
    }

    /// What this process was started for, if it is a server process.
    ///
    /// # Errors
    /// `BadOperation` if its standard input says something else.
    pub(crate) fn of_process() -> Result<Option<Self>> {
        match std::env::var_os(Self::VARIABLE) {
            Some(named) => Self::claim(&named, io::stdin()),
            None => Ok(None),
        }
    }

    /// Takes what is in the pipe that was named, if this is it and nobody was here before.
    fn claim(named: &OsStr, input: impl AsFd) -> Result<Option<Self>> {
        let name = Self::VARIABLE;
        // A process without an input has none of a node's.
        let found = file(&input).and_then(|file| Ok((file.metadata()?, file)));
        let pipe = found.ok().filter(|(found, _)| {
            found.file_type().is_fifo() && *named == *OsStr::new(&found.ino().to_string())
        });
        let mut text = String::new();
        let read = pipe.map(|(_, pipe)| pipe.take(TEXT_BYTES_MAX as u64).read_to_string(&mut text));
        match read {
            None | Some(Ok(0)) => {
                tracing::info!("{name} is set for the process that started this one");
                return Ok(None);
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let detail = format!("{name}: cannot read the standard input it names: {error}");
                return Err(SystemError::new(ErrorKind::BadOperation, detail));
            }
        }
        text.parse().map(Some).map_err(|()| {
            let detail = format!(
                "{name} names the standard input, but what is there is not of a node; remove it \
                 from the environment"
            );
            SystemError::new(ErrorKind::BadOperation, detail)
        })
    }

    /// Where the node is found.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the node has gone, then ends the process.
    ///
    /// # Errors
    /// If it cannot begin.
    pub(crate) async fn serve(
        self,
        name: &str,
        naming: Option<String>,
        classes: Vec<Class>,
        blocking_max: usize,
    ) -> Result<Infallible> {
        end_with_parent()?;
        let mut classes = classes.into_iter();
        let class = classes.find(|class| class.info().id == self.class);
        let class = class.filter(|_| name == self.node).ok_or_else(|| {
            let (class, node) = (self.class, &self.node);
            let detail = format!(
                "this process was started to serve class {class} of node {node}, but builds node \
                 {name} first, or one without the class; see NodeBuilder::server_command"
            );
            SystemError::new(ErrorKind::BadOperation, detail)
        })?;
        let me = Peer {
            node: random_node()?,
            incarnation: Incarnation(1),
        };
        let described = format!("server process of {}", class.info().name);
        let naming = naming.map(|address| Naming::new(Some(address)));
        let client = Client::of_process(me, &described, naming, Links::default(), 0, None);
        let runner = Runner {
            class,
            blocking: Arc::new(Blocking::new(blocking_max)),
            running: Arc::default(),
        };
        let server = ServerProcess::serve(&client, runner)?;
        let address = self.address.to_string();
        client.locator().introduce(&client, &address).await?;
        let node = client.node_at(&address).await?;
        node.manager()
            .offer(&client, self.token.clone(), &server)
            .await?;
        node.gone().await;
        tracing::info!("the node is gone, and with it its server processes");
        std::process::exit(0);
    }
}

/// The same open file once more.
fn file(input: &impl AsFd) -> io::Result<File> {
    input.as_fd().try_clone_to_owned().map(File::from)
}

/// Where the system has a word for it, even a process that computes ends with its node. Else it
/// ends when it sees that its connection is gone.
fn end_with_parent() -> Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(
        |error| {
            let detail = format!("a server process cannot ask to end with its node: {error}");
            SystemError::new(ErrorKind::Internal, detail)
        },
    )?;
    Ok(())
}

/// The part of an action of a call that is under way: undone unless its answer gets to the node,
/// which tells the rest.
struct Unanswered(Option<Branch>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(branch) = self.0.take() {
            branch.abandon();
        }
    }
}

impl Servant for Runner {
    async fn execute(&self, cx: &Context, execution: Execution) -> Result<Executed> {
        let cancel = Cancel::default();
        let number = execution.number;
        let unended = Arc::new(self.running.begin(number, &cancel));
        let mut unanswered = Unanswered(cx.branch());
        let order = self.order(cx, execution, &cancel)?;
        let method = &order.class.info().methods[order.method];
        let done = if method.blocking {
            let held: Arc<dyn Send + Sync> = unended.clone();
            self.blocking.run(order, cancel.clone(), Some(held)).await
        } else {
            drive(order, &cancel).await
        };
        if !cancel.is_cancelled() {
            unanswered.0 = None;
        }
        drop((unanswered, unended));
        executed(done)
    }

    async fn stop(&self, _cx: &Context, number: u64) -> Result<()> {
        self.running.stop(number).await;
        Ok(())
    }
}

impl Runner {
    fn order(&self, cx: &Context, execution: Execution, cancel: &Cancel) -> Result<Order> {
        let Execution {
            class,
            object,
            interface,
            ordinal,
            caller,
            call,
            foreign,
            parameters,
            state,
            ..
        } = execution;
        let info = self.class.info();
        let method = info.method(ClassId(interface), ordinal);
        let method = method.filter(|_| info.id == ClassId(class)).ok_or_else(|| {
            let detail = format!(
                "this process serves {}, which has no method {ordinal} of interface {}; was its \
                 program replaced while the node runs? restart the node",
                info.name,
                ClassId(interface)
            );
            SystemError::new(ErrorKind::BadOperation, detail)
        })?;
        let asked = Asked {
            caller: Peer::from(&caller),
            call: call.map(|name| CallId {
                caller: Peer::from(&name.caller),
                sequence: name.sequence,
            }),
            foreign,
        };
        Ok(Order {
            class: self.class.clone(),
            method,
            parameters: Message::from_segment(parameters, Vec::new())?,
            state: Some(state),
            context: Context::in_place_of(cx, object, asked).cancelled_by(cancel),
        })
    }
}

/// What the node is told of the end of a call.
fn executed(done: Result<Done>) -> Result<Executed> {
    let failed = |error: &SystemError| Executed {
        end: ExecutionEnd::Failed,
        answer: frame::failed(error, None).into(),
        state: Bytes::new(),
    };
    let Done { end, state, .. } = match done {
        Ok(done) => done,
        Err(error) => return Ok(failed(&error)),
    };
    let (end, w) = match end {
        End::Failed(error) => return Ok(failed(&error)),
        End::Returned(w) => (ExecutionEnd::Returned, w),
        End::Raised(w) => (ExecutionEnd::Raised, w),
    };
    if !w.attached().is_empty() {
        let detail = "a class that has processes of its own cannot answer with a call-back: \
                      capabilities connect two parties only";
        let error = SystemError::new(ErrorKind::BadOperation, detail);
        return Ok(failed(&error));
    }
    let (answer, _) = w.finish()?;
    Ok(Executed {
        end,
        answer: answer.into(),
        state: state.unwrap_or_default(),
    })
}

impl Running {
    fn begin(self: &Arc<Self>, number: u64, cancel: &Cancel) -> Unended {
        lock(&self.calls).insert(number, cancel.clone());
        let running = self.clone();
        Unended { running, number }
    }

    /// Stops a call and waits until it has ended.
    async fn stop(&self, number: u64) {
        loop {
            let ended = self.ended.notified();
            match lock(&self.calls).get(&number) {
                Some(cancel) => cancel.cancel(),
                None => return,
            }
            ended.await;
        }
    }
}

impl Drop for Unended {
    fn drop(&mut self) {
        lock(&self.running.calls).remove(&self.number);
        self.running.ended.notify_waiters();
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:016x} ", self.address, self.class.0)?;
        self.token
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, " {}", self.node)
    }
}

impl FromStr for Wish {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(4, ' ');
        let mut next = || parts.next().ok_or(());
        let (address, class, token, node) = (next()?, next()?, next()?, next()?);
        let bytes = token.as_bytes().chunks(2).map(|pair| {
            let pair = str::from_utf8(pair).map_err(|_| ())?;
            u8::from_str_radix(pair, 16).map_err(|_| ())
        });
        Ok(Self {
            address: address.parse().map_err(|_| ())?,
            token: bytes.collect::<Result<_, ()>>()?,
            class: ClassId(u64::from_str_radix(class, 16).map_err(|_| ())?),
            node: node.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish {
            address: "127.0.0.1:7411".parse().unwrap(),
            token: vec![0, 0xfe, 7],
            class: ClassId(0xf49a_3295_607f_13d3),
            node: "the node".to_owned(),
        }
    }

    #[test]
    fn a_wish_is_for_one_process() {
        let (pipe, named) = wish().pipe().unwrap();
        let named = OsStr::new(&named);
        // Who has inherited the variable alone takes nothing from its own input.
        let (mut other, mut theirs) = io::pipe().unwrap();
        theirs.write_all(b"theirs").unwrap();
        drop(theirs);
        assert_eq!(Wish::claim(named, &other).unwrap(), None);
        let mut kept = String::new();
        other.read_to_string(&mut kept).unwrap();
        assert_eq!(kept, "theirs");
        let null = File::open("/dev/null").unwrap();
        assert_eq!(Wish::claim(named, null).unwrap(), None);
        assert_eq!(Wish::claim(named, &pipe).unwrap(), Some(wish()));
        assert_eq!(Wish::claim(named, &pipe).unwrap(), None, "it is taken");
    }

    #[test]
    fn what_is_not_of_a_node_is_refused() {
        let (pipe, mut writer) = io::pipe().unwrap();
        writer.write_all(b"something else").unwrap();
        drop(writer);
        let named = file(&pipe).unwrap().metadata().unwrap().ino().to_string();
        let error = Wish::claim(OsStr::new(&named), &pipe).unwrap_err();
        assert!(error.detail().contains("remove it"), "{error}");
        let long = Wish {
            node: "n".repeat(TEXT_BYTES_MAX),
            ..wish()
        };
        assert!(long.pipe().is_err());
    }

    #[test]
    fn a_wish_comes_back_from_its_text() {
        let wish = wish();
        assert_eq!(wish.to_string().parse(), Ok(wish.clone()));
        for text in ["", "1", "127.0.0.1:7411 1 zz n", "127.0.0.1:7411 1 00"] {
            assert!(text.parse::<Wish>().is_err(), "{text}");
        }
    }
}
