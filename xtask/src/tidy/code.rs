//! Rules about Rust code, on its syntax tree: module docs, length of functions, names, `unwrap`,
//! reasons of allowed lints.
//!
//! A file that does not parse is reported and not looked at further. What a macro is given is
//! looked through for `unwrap` as plain tokens, since it has no tree.

use std::path::PathBuf;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{AttrStyle, Attribute, Block, File, Item, Meta, Signature};

use super::Problem;
use super::source::Source;

const FUNCTION_LINES_MAX: usize = 70;

pub(super) fn check<'a>(sources: impl Iterator<Item = &'a Source>, problems: &mut Vec<Problem>) {
    let mut parsed = Vec::new();
    for source in sources {
        match syn::parse_file(&source.text) {
            Ok(file) => parsed.push((source, file)),
            Err(error) => {
                let line = error.span().start().line;
                problems.push(source.problem(line, format!("the file does not parse: {error}")));
            }
        }
    }
    let free: Vec<_> = parsed
        .iter()
        .flat_map(|(source, file)| free_modules(source, file))
        .collect();
    for (source, file) in &parsed {
        let module = source.module();
        let in_test = source.is_test() || free.iter().any(|free| module.starts_with(free));
        check_file(source, file, in_test, problems);
    }
}

/// The modules whose files may say `unwrap`, because of an attribute in this file: on the whole of
/// it, or on a `mod name;`.
fn free_modules(source: &Source, file: &File) -> Vec<PathBuf> {
    let module = source.module();
    let mut found = Vec::new();
    for item in &file.items {
        if let Item::Mod(item) = item
            && item.content.is_none()
            && item.attrs.iter().any(frees_unwrap)
        {
            found.push(module.join(item.ident.to_string()));
        }
    }
    if file.attrs.iter().any(frees_unwrap) {
        found.push(module);
    }
    found
}

fn check_file(source: &Source, file: &File, in_test: bool, problems: &mut Vec<Problem>) {
    let documented = |attribute: &Attribute| {
        matches!(attribute.style, AttrStyle::Inner(_)) && attribute.path().is_ident("doc")
    };
    if !file.attrs.iter().any(documented) {
        problems.push(source.problem(1, "the module has no `//!` documentation"));
    }
    let mut visitor = Visitor {
        source,
        problems,
        in_test,
        in_trait_impl: false,
    };
    visitor.visit_file(file);
}

struct Visitor<'a> {
    source: &'a Source,
    problems: &'a mut Vec<Problem>,
    in_test: bool,
    /// Inside `impl Trait for Type`, where the trait chose the names.
    in_trait_impl: bool,
}

impl Visitor<'_> {
    fn report(&mut self, line: usize, what: String) {
        self.problems.push(self.source.problem(line, what));
    }

    fn check_function(&mut self, signature: &Signature, block: Option<&Block>) {
        let line = signature.fn_token.span.start().line;
        let name = signature.ident.to_string();
        if name.starts_with("get_") && !self.in_trait_impl {
            self.report(line, format!("`{name}`: name it without `get_`"));
        }
        let Some(block) = block else { return };
        let lines = block.span().end().line - line + 1;
        if lines > FUNCTION_LINES_MAX {
            let limit = FUNCTION_LINES_MAX;
            self.report(
                line,
                format!("`{name}` has {lines} lines, at most {limit}: split it"),
            );
        }
    }

    fn check_unwrap(&mut self, line: usize) {
        if !self.in_test {
            let cure = "handle it, or `expect` with the invariant that holds";
            self.report(line, format!("`unwrap()` outside tests: {cure}"));
        }
    }

    fn check_tokens(&mut self, tokens: TokenStream) {
        let mut before = None;
        for token in tokens {
            if let TokenTree::Group(group) = &token {
                let call = group.delimiter() == Delimiter::Parenthesis && group.stream().is_empty();
                if let (Some(TokenTree::Ident(name)), true) = (&before, call)
                    && name == "unwrap"
                {
                    self.check_unwrap(name.span().start().line);
                }
                self.check_tokens(group.stream());
            }
            before = Some(token);
        }
    }

    /// Visits what has these attributes, as test code if they say so.
    fn within(&mut self, attributes: &[Attribute], visit: impl FnOnce(&mut Self)) {
        let outer = self.in_test;
        self.in_test |= attributes.iter().any(frees_unwrap);
        visit(self);
        self.in_test = outer;
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.check_function(&item.sig, Some(&item.block));
        self.within(&item.attrs, |visitor| visit::visit_item_fn(visitor, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.check_function(&item.sig, Some(&item.block));
        self.within(&item.attrs, |visitor| {
            visit::visit_impl_item_fn(visitor, item)
        });
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.check_function(&item.sig, item.default.as_ref());
        self.within(&item.attrs, |visitor| {
            visit::visit_trait_item_fn(visitor, item)
        });
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.within(&item.attrs, |visitor| visit::visit_item_mod(visitor, item));
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let outer = self.in_trait_impl;
        self.in_trait_impl = item.trait_.is_some();
        self.within(&item.attrs, |visitor| visit::visit_item_impl(visitor, item));
        self.in_trait_impl = outer;
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" && call.args.is_empty() {
            self.check_unwrap(call.method.span().start().line);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.check_tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let path = attribute.path();
        if !path.is_ident("allow") && !path.is_ident("expect") {
            return;
        }
        let Meta::List(list) = &attribute.meta else {
            return;
        };
        let is_reason = |token| matches!(token, TokenTree::Ident(name) if name == "reason");
        if !list.tokens.clone().into_iter().any(is_reason) {
            let name = if path.is_ident("allow") {
                "allow"
            } else {
                "expect"
            };
            let line = attribute.span().start().line;
            self.report(
                line,
                format!("`#[{name}]` without a reason: add `reason = \"…\"`"),
            );
        }
    }
}

/// Whether what has this attribute may say `unwrap`: it is test code (`#[test]`, `#[tokio::test]`,
/// `#[cfg(test)]` and the like, but not `#[cfg(not(test))]`), or clippy's lint is lifted from it.
fn frees_unwrap(attribute: &Attribute) -> bool {
    let path = attribute.path();
    let Meta::List(list) = &attribute.meta else {
        return path
            .segments
            .last()
            .is_some_and(|name| name.ident == "test");
    };
    let names = words(list.tokens.clone());
    let says = |word: &str| names.iter().any(|name| name == word);
    if path.is_ident("cfg") {
        return says("test") && !says("not");
    }
    let lifted = (path.is_ident("allow") || path.is_ident("expect")) && says("unwrap_used");
    lifted
        || path
            .segments
            .last()
            .is_some_and(|name| name.ident == "test")
}

fn words(tokens: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Ident(name) => found.push(name.to_string()),
            TokenTree::Group(group) => found.extend(words(group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(files: &[(&str, &str)]) -> Vec<String> {
        let source = |&(path, text): &(&str, &str)| Source {
            path: path.into(),
            text: text.to_owned(),
        };
        let sources: Vec<_> = files.iter().map(source).collect();
        let mut problems = Vec::new();
        check(sources.iter(), &mut problems);
        problems.iter().map(Problem::to_string).collect()
    }

    fn problems(path: &str, text: &str) -> Vec<String> {
        problems_of(&[(path, text)])
    }

    #[track_caller]
    fn breaks(text: &str, rule: &str) {
        let found = problems("a.rs", &format!("//! Doc.\n{text}"));
        assert!(
            found.len() == 1 && found[0].contains(rule),
            "expected `{rule}`: {found:?}"
        );
    }

    #[track_caller]
    fn keeps(text: &str) {
        let found = problems("a.rs", &format!("//! Doc.\n{text}"));
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_module_needs_its_documentation() {
        let found = problems("a.rs", "// a comment\n/// of the item\nfn f() {}\n");
        assert_eq!(found, ["a.rs:1: the module has no `//!` documentation"]);
    }

    #[test]
    fn what_does_not_parse_is_said_with_its_line() {
        breaks("fn f( {}\n", "a.rs:2: the file does not parse");
    }

    #[test]
    fn long_functions_are_found_wherever_they_stand() {
        let body = |lines| "    let _ = 1;\n".repeat(lines);
        breaks(
            &format!("fn f() {{\n{}}}\n", body(69)),
            "a.rs:2: `f` has 71 lines",
        );
        breaks(
            &format!("impl S {{ fn f() {{\n{}}} }}\n", body(69)),
            "`f` has 71 lines",
        );
        breaks(
            &format!("trait T {{ fn f() {{\n{}}} }}\n", body(69)),
            "`f` has 71 lines",
        );
        breaks(
            &format!("mod m {{ fn f() {{\n{}}} }}\n", body(69)),
            "`f` has 71 lines",
        );
        keeps(&format!("/// Doc.\n#[inline]\nfn f() {{\n{}}}\n", body(68)));
    }

    #[test]
    fn unwrap_is_found_in_code_and_in_macros() {
        breaks(
            "fn f() {\n    g().unwrap();\n}\n",
            "a.rs:3: `unwrap()` outside tests",
        );
        breaks(
            "fn f() { println!(\"{}\", g().unwrap()); }\n",
            "`unwrap()` outside tests",
        );
        breaks(
            "#[cfg(not(test))]\nfn f() { g().unwrap(); }\n",
            "`unwrap()` outside tests",
        );
        keeps("fn f() { g().unwrap_or(1); h().expect(\"always set\"); }\n");
        keeps("/// `x.unwrap()`\nfn f() {}\n");
    }

    #[test]
    fn unwrap_is_allowed_in_tests() {
        keeps("#[cfg(test)]\nmod tests { fn f() { g().unwrap(); } }\n");
        keeps("#[test]\nfn f() { assert!(g().unwrap()); }\n");
        keeps("#[tokio::test]\nasync fn f() { g().unwrap(); }\n");
        keeps("#[cfg(any(test, feature = \"sim\"))]\nimpl S { fn f() { g().unwrap(); } }\n");
        assert!(problems("a/tests/b.rs", "//! D.\nfn f() { g().unwrap(); }\n").is_empty());
    }

    #[test]
    fn unwrap_is_allowed_in_the_files_of_a_test_module() {
        let body = "//! D.\nfn f() { g().unwrap(); }\n";
        let declared = [
            "#[cfg(test)]\n",
            "#[expect(clippy::unwrap_used, reason = \"r\")]\n",
        ];
        for attribute in declared {
            let root = format!("//! D.\n{attribute}mod suite;\nmod other;\n");
            let files = [
                ("a/src/lib.rs", root.as_str()),
                ("a/src/suite.rs", body),
                ("a/src/suite/deep.rs", body),
                ("a/src/other.rs", body),
            ];
            let found = problems_of(&files);
            assert!(
                found.len() == 1 && found[0].starts_with("a/src/other.rs:2"),
                "{found:?}"
            );
        }
        let lifted = format!("//! D.\n#![expect(clippy::unwrap_used, reason = \"r\")]\n{body}");
        let files = [
            ("a/suite/mod.rs", lifted.as_str()),
            ("a/suite/deep.rs", body),
        ];
        assert_eq!(problems_of(&files), Vec::<String>::new());
    }

    #[test]
    fn allowed_lints_need_a_reason() {
        breaks(
            "#[allow(dead_code)]\nfn f() {}\n",
            "a.rs:2: `#[allow]` without a reason",
        );
        breaks(
            "#![expect(dead_code)]\nfn f() {}\n",
            "`#[expect]` without a reason",
        );
        breaks(
            "struct S { #[allow(dead_code)] a: u8 }\n",
            "without a reason",
        );
        keeps("#[allow(dead_code, reason = \"used by the next layer\")]\nfn f() {}\n");
    }

    #[test]
    fn accessors_are_named_after_what_they_return() {
        breaks(
            "impl S { fn get_name(&self) -> u8 { 1 } }\n",
            "`get_name`: name it without",
        );
        breaks(
            "trait T { fn get_name(&self); }\n",
            "`get_name`: name it without",
        );
        keeps("impl T for S { fn get_name(&self) {} }\n");
        keeps("fn get() {}\nfn target() {}\n");
    }
}
