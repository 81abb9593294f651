//! No input makes the compiler panic or hang.
//!
//! The corpus is damaged at random, but by a seed, so that a failure can be repeated; and inputs
//! are made that are large, deep or long where a walk could be slow or recursive. Bounds on time
//! are far above what is needed, to tell a quadratic walk from a linear one on any machine.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use partha_idl::{Diagnostics, SourceMap, compile};

const MEGABYTE: usize = 1 << 20;

/// Seconds would do; but a machine may be busy with other things, and this is a debug build.
const TIME_MAX: Duration = Duration::from_secs(300);

/// Compiles one text in memory; on failure the diagnostics are rendered in every form.
fn run(text: impl Into<Vec<u8>>) -> Result<usize, Diagnostics> {
    let path = PathBuf::from("memory/test.idl");
    let mut sources = SourceMap::new();
    sources.add_memory(&path, text);
    let result = compile(&mut sources, &[path]);
    if let Err(diagnostics) = &result {
        assert!(diagnostics.error_count() > 0);
        assert!(!diagnostics.render(false).is_empty());
        assert!(!diagnostics.render(true).is_empty());
        assert!(!diagnostics.render_json().is_empty());
    }
    result.map(|model| model.items.len())
}

fn codes(diagnostics: &Diagnostics) -> Vec<&'static str> {
    diagnostics
        .iter()
        .map(|diagnostic| diagnostic.code())
        .collect()
}

/// The only error's code.
fn only_code(text: impl Into<Vec<u8>>) -> &'static str {
    let diagnostics = run(text).expect_err("must not compile");
    assert_eq!(diagnostics.error_count(), 1, "{diagnostics}");
    codes(&diagnostics)[0]
}

fn within(limit: Duration, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    assert!(start.elapsed() < limit, "took {:?}", start.elapsed());
}

/// Xorshift: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let ui = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let mut texts = Vec::new();
    for folder in ["pass", "warn", "fail"] {
        for entry in fs::read_dir(ui.join(folder)).expect("the corpus") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "idl") {
                texts.push((path.clone(), fs::read(&path).expect("a file of the corpus")));
            }
        }
    }
    texts.sort();
    texts
}

fn damage(text: &mut Vec<u8>, others: &[(PathBuf, Vec<u8>)], random: &mut Random) {
    const PIECES: [&str; 24] = [
        "{", "}", "(", ")", "[", "]", "<", ">", "\"", "'", "/*", "*/", "//", "#[", "@", "::",
        "r#\"", "\\", "\u{feff}", "é", "-", ";", "struct ", "list<",
    ];
    let at = random.below(text.len() + 1);
    match random.below(6) {
        0 => {
            let end = (at + random.below(20)).min(text.len());
            text.drain(at..end);
        }
        1 => text.truncate(at),
        2 => {
            text.splice(at..at, PIECES[random.below(PIECES.len())].bytes());
        }
        3 => {
            let other = &others[random.below(others.len())].1;
            let start = random.below(other.len());
            let end = (start + random.below(80)).min(other.len());
            text.splice(at..at, other[start..end].iter().copied());
        }
        4 => {
            if let Some(byte) = text.get_mut(at) {
                *byte = random.below(256) as u8;
            }
        }
        _ => {
            let start = random.below(text.len() + 1).min(at);
            let copy: Vec<u8> = text[start..at].to_vec();
            text.splice(at..at, copy);
        }
    }
}

#[test]
fn damaged_corpus_files_are_refused_or_compiled() {
    const ROUNDS: usize = 4_000;
    let texts = corpus();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui/pass");
    let mut random = Random(0x5eed_0fed_1a57_c0de);
    for round in 0..ROUNDS {
        let (path, text) = &texts[random.below(texts.len())];
        let mut text = text.clone();
        for _ in 0..=random.below(4) {
            damage(&mut text, &texts, &mut random);
        }
        let mut sources = SourceMap::new();
        sources.add_include(&folder);
        sources.add_memory(path, text);
        // The panic's own message, should there be one, follows this line.
        println!("round {round}: {}", path.display());
        if let Err(diagnostics) = compile(&mut sources, std::slice::from_ref(path)) {
            let _ = (diagnostics.render(true), diagnostics.render_json());
        }
    }
}

#[test]
fn ten_thousand_brackets_give_one_error() {
    for bracket in ["(", "[", "{", "list<", "#["] {
        let text = format!("module test;\nstruct A {{ a: {}", bracket.repeat(10_000));
        let diagnostics = run(text).expect_err("must not compile");
        let code = codes(&diagnostics)[0];
        assert!(
            ["E0004", "E0005"].contains(&code),
            "{bracket}: {diagnostics}"
        );
        assert_eq!(diagnostics.error_count(), 1, "{bracket}: {diagnostics}");
    }
    let balanced = format!(
        "module test;\nstruct A {}{}",
        "{".repeat(10_000),
        "}".repeat(10_000)
    );
    assert_eq!(only_code(balanced), "E0005");
    let hidden = format!(
        "module test;\nconst A: string = 1r\"a\\\" \" {}{}\"",
        "(".repeat(10_000),
        ")".repeat(10_000)
    );
    assert!(run(hidden).is_err());
}

#[test]
fn long_runs_of_operators_do_not_recurse() {
    for text in [
        "-", "!", "&", "@", "#", "::", "<", ">", "a<", "a::", "#![x]", "r#a ",
    ] {
        let text = text.repeat(10_000);
        for place in [
            "",
            "module test; const A: i64 = ",
            "module test; #[x = ",
            "struct A { a: ",
        ] {
            assert!(run(format!("{place}{text}")).is_err());
        }
    }
}

#[test]
fn megabytes_of_declarations_compile_in_seconds() {
    let mut text = String::from("module test;\n");
    let mut number = 0;
    while text.len() < 10 * MEGABYTE {
        let _ = writeln!(
            text,
            "/// Number {number}, größer.\nstruct Entry{number} {{ at: timestamp, amount: \
             option<i64>, names: list<string>, next: list<Entry{number}> }}\n\
             interface User{number} {{ fn take(&mut self, entry: Entry{number}) -> bool; }}"
        );
        number += 1;
    }
    within(TIME_MAX, || {
        assert_eq!(run(text).expect("compiles"), 2 * number);
    });
}

#[test]
fn megabytes_of_errors_are_counted_and_few_are_kept() {
    for line in [
        "struct A { a: Nowhere }\n",
        "strct A { }\n",
        "; ",
        "fn ",
        "@ ",
        "struct ",
    ] {
        let text = format!("module test;\n{}", line.repeat(MEGABYTE / 4 / line.len()));
        within(TIME_MAX, || {
            let diagnostics = run(text).expect_err("must not compile");
            assert!(diagnostics.iter().count() <= 100);
        });
    }
}

#[test]
fn one_line_of_megabytes_is_shown_by_its_place() {
    let filler = "é".repeat(MEGABYTE);
    let text = format!("module test; /* {filler} */ struct A {{ a: i46, b: i46x }} /* {filler} */");
    let diagnostics = run(text).expect_err("must not compile");
    let rendered = diagnostics.render(false);
    assert!(rendered.contains("memory/test.idl:1:1048611"), "{rendered}");
    assert!(rendered.len() < 1_000, "{} bytes", rendered.len());
}

#[test]
fn long_chains_are_walked_without_recursion() {
    const LENGTH: usize = 20_000;
    let mut structs = String::from("module test;\n");
    let mut circle = String::from("module test;\n");
    let mut interfaces = String::from("module test;\n");
    for number in 0..LENGTH {
        let next = number + 1;
        let _ = writeln!(structs, "struct S{number} {{ next: S{next} }}");
        let _ = writeln!(circle, "struct S{number} {{ next: S{} }}", next % LENGTH);
        let _ = writeln!(
            interfaces,
            "interface I{number}: I{next} {{ fn m{number}(&self); }}"
        );
    }
    let _ = writeln!(structs, "struct S{LENGTH} {{ }}");
    let _ = writeln!(interfaces, "interface I{LENGTH} {{ }}");
    within(TIME_MAX, || {
        assert_eq!(run(structs).expect("compiles"), LENGTH + 1);
        assert_eq!(only_code(circle), "E0403");
        let diagnostics = run(interfaces).expect_err("must not compile");
        assert!(
            codes(&diagnostics).iter().all(|code| *code == "E0407"),
            "{diagnostics}"
        );
    });
}

#[test]
fn long_names_cost_no_more_than_their_length() {
    let name = "a".repeat(MEGABYTE);
    let text = format!("module test;\nstruct A {{ {name}: {name}b, c: {name}c }}");
    within(TIME_MAX, || {
        let diagnostics = run(text).expect_err("must not compile");
        assert!(diagnostics.render(false).len() < 2_000);
    });
}

#[test]
fn many_names_are_not_compared_pairwise() {
    const COUNT: usize = 8_000;
    let list = |one: &dyn Fn(usize) -> String| (0..COUNT).map(one).collect::<String>();
    let exceptions = list(&|n| format!("exception E{n} {{ }}\n"));
    let raises: Vec<String> = (0..COUNT).map(|n| format!("E{n}")).collect();
    let texts = [
        format!(
            "interface A {{ {} fn a(&self); }}",
            list(&|n| format!("#[a{n}]"))
        ),
        list(&|n| format!("use m{n}::T{n};\n")),
        list(&|n| format!("struct S{n} {{ a: S{}, b: S0 }}\n", (n + 1) % COUNT)),
        list(&|n| format!("struct S{n} {{ a{n}: Unknown{n} }}\n")),
        list(&|n| format!("struct A {{ a: i64, a: i64, b{n}: i64 }} struct A {{ c{n}: i64 }}")),
        list(&|n| format!("interface I{n}: I{} {{ fn a(&self); }}\n", (n + 1) % COUNT)),
        format!(
            "{exceptions} interface A {{ fn a(&self) raises {}, E0; }}",
            raises.join(",")
        ),
    ];
    for text in texts {
        within(TIME_MAX, || {
            run(format!("module test;\n{text}")).expect_err("must not compile");
        });
    }
}

#[test]
fn a_chain_of_imports_has_any_length() {
    const LENGTH: usize = 3_000;
    let mut sources = SourceMap::new();
    for number in 0..LENGTH {
        let next = (number + 1) % LENGTH;
        let text = format!("module m{number};\nuse m{next}::T{next};\nstruct T{number} {{ }}\n");
        sources.add_memory(format!("m{number}.idl"), text);
    }
    let diagnostics = compile(&mut sources, &[PathBuf::from("m0.idl")]).expect_err("a circle");
    assert_eq!(codes(&diagnostics), ["E0303"], "{diagnostics}");
    let last = format!("module m{}; struct T{} {{ }}", LENGTH - 1, LENGTH - 1);
    sources.add_memory(format!("m{}.idl", LENGTH - 1), last);
    let model = compile(&mut sources, &[PathBuf::from("m0.idl")]).expect("no circle");
    assert_eq!(model.modules.len(), LENGTH);
    assert_eq!(model.modules[0].name, format!("m{}", LENGTH - 1));
    assert_eq!(sources.warnings().warning_count(), 1);
}

#[test]
fn files_that_are_too_large_are_refused_before_they_are_read() {
    assert_eq!(only_code(" ".repeat(17 * MEGABYTE)), "E0002");
    assert_eq!(only_code(vec![0xff; 100]), "E0003");
    assert_eq!(only_code(vec![0; 100]), "E0007");
    assert_eq!(only_code(Vec::new()), "E0102");
}

#[test]
fn folders_and_absent_files_are_refused() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in [here.to_owned(), here.join("absent.idl"), PathBuf::new()] {
        let diagnostics = compile(&mut SourceMap::new(), &[path]).expect_err("no file");
        assert_eq!(codes(&diagnostics), ["E0001"], "{diagnostics}");
    }
}
