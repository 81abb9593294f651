//! How many system calls a call takes on each side, as `strace -c -f` counts them.
//!
//! In runs of their own, since a traced process is many times slower: their rates mean nothing.
//! What is counted is input, output and waiting; a start's other calls would be in the way.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::load::{Load, Work};
use super::peer::Peer;
use super::{cpp, drive_command, load_of, serve_command};
use crate::figure::{Found, Metric, Parameters};
use crate::process::{self, Running, Start};
use crate::suite::{Absent, Benchmark, Case, Plan, Setting, View};

/// Reading, writing and waiting.
const COUNTED: &str = "trace=read,readv,recvfrom,recvmsg,recvmmsg,write,writev,sendto,sendmsg,\
                       sendmmsg,epoll_wait,epoll_pwait,epoll_pwait2,poll,ppoll,select,pselect6,\
                       futex";

pub(super) const BENCHMARK: Benchmark = Benchmark {
    name: "syscalls",
    about: "reads, writes and waits for each null call, counted by strace",
    on_request: true,
    view: View {
        reference: None,
        metrics: &[Metric::ClientSyscalls, Metric::ServerSyscalls],
        tall: false,
        plots: &[],
    },
    plan,
};

fn plan(setting: &Setting) -> anyhow::Result<Plan> {
    let found = Command::new("strace").arg("--version").output();
    let installed = found.is_ok_and(|output| output.status.success());
    let mut plan = Plan::default();
    for peer in Peer::SERVERS {
        let strace = "strace is not installed: apt-get install strace";
        let missing = (!installed).then(|| strace.to_owned());
        if let Some(why) = missing.or_else(|| cpp::missing(peer)) {
            let peer = peer.name();
            plan.absent.push(Absent { peer, why });
        }
    }
    for outstanding in [1, 64] {
        for peer in Peer::SERVERS {
            if plan.absent.iter().any(|absent| absent.peer == peer.name()) {
                continue;
            }
            let load = Load {
                outstanding: outstanding as usize,
                ..load_of(setting, Work::Null)
            };
            plan.cases.push(Case {
                peer: peer.name(),
                parameters: Parameters::default().with("outstanding", outstanding),
                rounds: 1,
                takes: setting.run_takes() + Duration::from_millis(500),
                run: Box::new(move || run(peer, load)),
            });
        }
    }
    Ok(plan)
}

fn run(peer: Peer, load: Load) -> anyhow::Result<Found> {
    let dir = tempfile::tempdir().context("cannot make a folder for what strace says")?;
    let (of_server, of_client) = (dir.path().join("server"), dir.path().join("client"));
    let what = format!("the traced server of {}", peer.name());
    let command = traced(serve_command(peer, 1, None)?, &of_server);
    let server = Running::start(&what, command, Start::Ended)?;
    let command = drive_command(peer, Some(server.address()), load, None)?;
    let what = format!("the traced client of {}", peer.name());
    let found: Found = process::run_client(&what, traced(command, &of_client), "")?;
    drop(server);
    let calls = found.metrics.get(&Metric::Calls);
    let calls = calls.context("the client counted no calls")?;
    Ok(Found::default()
        .with(Metric::ClientSyscalls, counted(&of_client)? / calls)
        .with(Metric::ServerSyscalls, counted(&of_server)? / calls)
        .with(Metric::Calls, *calls))
}

fn traced(command: Command, summary: &Path) -> Command {
    let mut traced = Command::new("strace");
    traced
        .args(["-c", "-f", "-qq", "-e", COUNTED, "-o"])
        .arg(summary);
    traced.arg(command.get_program()).args(command.get_args());
    traced
}

/// The sum of the column `calls` of a summary.
fn counted(summary: &Path) -> anyhow::Result<f64> {
    let text = fs::read_to_string(summary);
    let text = text.with_context(|| format!("strace left no {}", summary.display()))?;
    sum(&text)
}

fn sum(summary: &str) -> anyhow::Result<f64> {
    let mut calls = 0.0;
    for line in summary.lines() {
        let mut columns = line.split_whitespace();
        let counts = |share: &str| share.parse::<f64>().is_ok();
        if columns.next().is_some_and(counts) && !line.ends_with(" total") {
            let column = columns.nth(2).context("a line of strace without a count")?;
            calls += column.parse::<f64>().context("a count that is no number")?;
        }
    }
    ensure!(calls > 0.0, "strace counted nothing in `{summary}`");
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_strace_is_added_up() {
        let summary = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 79.20    0.184000           9     20123       12 recvfrom
 20.80    0.048320           4     10062           sendto
------ ----------- ----------- --------- --------- ----------------
100.00    0.232320           7     30185       12 total
";
        assert_eq!(sum(summary).unwrap(), 30_185.0);
        assert!(sum("").is_err());
    }
}
