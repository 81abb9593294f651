//! The commands about IDL files: `generate`, `check`, `explain`.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use partha_codegen::Options;
use partha_idl::{Diagnostics, Model, SourceMap};

use crate::arguments::{Check, CheckFormat, Explain, Generate, Sources};
use crate::failure::Usage;
use crate::output::Output;
use crate::suggest;

/// `partha generate`
pub(crate) fn generate(arguments: &Generate, out: &mut Output) -> anyhow::Result<ExitCode> {
    let mut sources = source_map(&arguments.sources);
    let Some(model) = complain(compile(&mut sources, &arguments.sources), &sources) else {
        return Ok(ExitCode::FAILURE);
    };
    let mut options = Options::default();
    options.modules.extend(arguments.externs.iter().cloned());
    let outputs = partha_codegen::generate(&model, &options);
    if arguments.check {
        let difference = partha_codegen::check(&outputs, &arguments.out_dir)?;
        out.text(&difference)?;
        out.flush()?;
        return Ok(if difference.is_empty() {
            ExitCode::SUCCESS
        } else {
            eprintln!("error: generated files are stale; `partha generate` makes them anew");
            ExitCode::FAILURE
        });
    }
    for path in partha_codegen::write(&outputs, &arguments.out_dir)? {
        out.line(&format!("wrote {}", path.display()))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// `partha check`
pub(crate) fn check(arguments: &Check, out: &mut Output) -> anyhow::Result<ExitCode> {
    let mut sources = source_map(&arguments.sources);
    let result = compile(&mut sources, &arguments.sources);
    let valid = match arguments.format {
        CheckFormat::Human => complain(result, &sources).is_some(),
        CheckFormat::Json => {
            let valid = result.is_ok();
            let said = result.err().unwrap_or_else(|| sources.warnings().clone());
            out.text(&said.render_json())?;
            out.flush()?;
            valid
        }
    };
    Ok(if valid {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// `partha explain`
pub(crate) fn explain(arguments: &Explain, out: &mut Output) -> anyhow::Result<()> {
    let Some(code) = &arguments.code else {
        for known in partha_idl::explanations() {
            out.line(&format!("{}  {}", known.code, known.title))?;
        }
        return Ok(());
    };
    let Some(known) = partha_idl::explain(code) else {
        let codes = partha_idl::explanations().iter().map(|known| known.code);
        let hint = suggest::hint(&code.to_uppercase(), codes);
        let what = format!("there is no code '{code}'; `partha explain` lists all{hint}");
        return Err(Usage(what).into());
    };
    out.line(&format!("{}: {}\n", known.code, known.title))?;
    out.line(&wrapped(known.text))?;
    if let Some(example) = known.example {
        out.line("\nFor example:\n")?;
        for line in example.lines() {
            out.line(format!("    {line}").trim_end())?;
        }
    }
    Ok(())
}

fn source_map(arguments: &Sources) -> SourceMap {
    let mut sources = partha_codegen::sources();
    for folder in &arguments.includes {
        sources.add_include(folder);
    }
    sources
}

fn compile(sources: &mut SourceMap, arguments: &Sources) -> Result<Model, Diagnostics> {
    partha_idl::compile(sources, &arguments.files)
}

/// Prints errors or warnings to standard error; the model, if there is one.
fn complain(result: Result<Model, Diagnostics>, sources: &SourceMap) -> Option<Model> {
    let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match result {
        Ok(model) => {
            eprint!("{}", sources.warnings().render(color));
            Some(model)
        }
        Err(errors) => {
            eprint!("{}", errors.render(color));
            None
        }
    }
}

/// Lines of at most 80 columns.
fn wrapped(text: &str) -> String {
    const COLUMNS_MAX: usize = 80;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("it begins with one line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > COLUMNS_MAX {
            lines.push(word.to_owned());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.join("\n")
}
