//! The peers in C++, Ice and omniORB: compiled here, where their Debian packages are installed.
//!
//! Their sources are part of this program, so that it needs no folder of its own; what is compiled
//! lies beside it, under `target/`, and is compiled again only if a source or a command has
//! changed. Both take the options of the commands `serve` and `drive`, and print what those print.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use super::peer::Peer;
use crate::interrupt;

/// How a peer is compiled.
struct Recipe {
    peer: Peer,
    /// Names and texts of its sources.
    sources: &'static [(&'static str, &'static str)],
    /// The commands, in turn, in the folder of the sources.
    commands: &'static [&'static [&'static str]],
    packages: &'static str,
}

const SHARED: (&str, &str) = ("bench.hpp", include_str!("../../foreign/bench.hpp"));

const RECIPES: [Recipe; 2] = [
    Recipe {
        peer: Peer::Ice,
        sources: &[
            SHARED,
            ("Null.ice", include_str!("../../foreign/ice/Null.ice")),
            ("main.cpp", include_str!("../../foreign/ice/main.cpp")),
        ],
        commands: &[
            &["slice2cpp", "Null.ice"],
            &[
                "g++",
                "-std=c++17",
                "-O2",
                "-DICE_CPP11_MAPPING",
                "-I.",
                "-o",
                "peer",
                "main.cpp",
                "Null.cpp",
                "-lIce++11",
                "-lpthread",
            ],
        ],
        packages: "g++ zeroc-ice-all-dev zeroc-ice-compilers",
    },
    Recipe {
        peer: Peer::Omniorb,
        sources: &[
            SHARED,
            ("Null.idl", include_str!("../../foreign/omniorb/Null.idl")),
            ("main.cpp", include_str!("../../foreign/omniorb/main.cpp")),
        ],
        commands: &[
            &["omniidl", "-bcxx", "Null.idl"],
            &[
                "g++",
                "-std=c++17",
                "-O2",
                "-I.",
                "-o",
                "peer",
                "main.cpp",
                "NullSK.cc",
                "-lomniORB4",
                "-lomnithread",
                "-lpthread",
            ],
        ],
        packages: "g++ omniidl libomniorb4-dev",
    },
];

fn recipe(peer: Peer) -> Option<&'static Recipe> {
    RECIPES.iter().find(|recipe| recipe.peer == peer)
}

/// Why a peer cannot be measured here; `None` if it can, or is not in C++.
pub(super) fn missing(peer: Peer) -> Option<String> {
    let recipe = recipe(peer)?;
    let programs = recipe.commands.iter().map(|command| command[0]);
    let mut absent = programs.filter(|program| !is_there(program));
    let program = absent.next()?;
    Some(format!(
        "{program} is not installed: apt-get install {}",
        recipe.packages
    ))
}

fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The program of a peer in C++, compiled if need be; `None` if the peer is not in C++.
pub(super) fn program(peer: Peer) -> anyhow::Result<Option<PathBuf>> {
    let Some(recipe) = recipe(peer) else {
        return Ok(None);
    };
    let ours = env::current_exe().context("cannot find our own program")?;
    let beside = ours.parent().context("our own program lies nowhere")?;
    let dir = beside.join("bench-foreign").join(peer.name());
    let program = dir.join("peer");
    if !(program.is_file() && recipe.is_written_in(&dir)) {
        compile(recipe, &dir)
            .with_context(|| format!("cannot compile the peer {}", peer.name()))?;
    }
    Ok(Some(program))
}

impl Recipe {
    /// Names and texts of what lies beside the program: its sources, and how it was compiled.
    fn files(&self) -> Vec<(&'static str, String)> {
        let sources = self.sources.iter();
        let mut files: Vec<_> = sources
            .map(|&(name, text)| (name, text.to_owned()))
            .collect();
        let commands = self.commands.iter().map(|command| command.join(" ") + "\n");
        files.push(("commands", commands.collect()));
        files
    }

    fn is_written_in(&self, dir: &Path) -> bool {
        let mut files = self.files().into_iter();
        files.all(|(name, text)| {
            fs::read_to_string(dir.join(name)).is_ok_and(|written| written == text)
        })
    }

    fn write_into(&self, dir: &Path) -> anyhow::Result<()> {
        for (name, text) in self.files() {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Compiles aside and puts the finished folder in place, so that a half-compiled one is never taken
/// for whole.
fn compile(recipe: &Recipe, dir: &Path) -> anyhow::Result<()> {
    let parent = dir.parent().context("a folder without a parent")?;
    fs::create_dir_all(parent)?;
    let aside = tempfile::tempdir_in(parent)?;
    recipe.write_into(aside.path())?;
    for command in recipe.commands {
        let child = Command::new(command[0])
            .args(&command[1..])
            .current_dir(aside.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command[0]))?;
        let output = interrupt::wait_for(child.id(), || child.wait_with_output())?;
        interrupt::check()?;
        ensure!(
            output.status.success(),
            "{} ended with {}:\n{}",
            command[0],
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::rename(aside.path(), dir)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compiled_otherwise_is_compiled_again() {
        let recipe = |text, commands| Recipe {
            peer: Peer::Ice,
            sources: text,
            commands,
            packages: "",
        };
        const SOURCE: &[(&str, &str)] = &[("main.cpp", "int main() {}")];
        const COMMAND: &[&[&str]] = &[&["g++", "-O2"]];
        let dir = tempfile::tempdir().unwrap();
        let first = recipe(SOURCE, COMMAND);
        assert!(!first.is_written_in(dir.path()));
        first.write_into(dir.path()).unwrap();
        assert!(first.is_written_in(dir.path()));
        let other_flag = recipe(SOURCE, &[&["g++", "-O3"]]);
        assert!(!other_flag.is_written_in(dir.path()));
        let other_source = recipe(&[("main.cpp", "int main() { return 0; }")], COMMAND);
        assert!(!other_source.is_written_in(dir.path()));
    }
}
